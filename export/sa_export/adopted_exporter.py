"""Further forms of a model that was adopted, from its FP32 artefact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sa_export.crop_sets import calibration_crops, validation_crops
from sa_export.gates import Gates
from sa_export.graph_exporter import GraphExporter
from sa_export.quantize.quantizer import Calibration
from sa_runtime.artefact.contract import Contract, Precision
from sa_runtime.artefact.metadata import contract_text, read_contract
from sa_runtime.errors import InputError
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from sa_export.export import CropSources


def is_adopted(path: Path) -> bool:
    """Whether a file is an ONNX artefact that ``sa-deploy adopt`` wrote."""
    if path.suffix != ".onnx" or not path.is_file() or contract_text(path) is None:
        return False
    return "adopted_from" in read_contract(path).network


def exporter_from_adopted(
    path: Path,
    precision: Precision,
    gates: Gates,
    sources: CropSources,
    *,
    on_note: Callable[[str], None] = lambda text: None,
) -> GraphExporter:
    """An exporter whose reference is the artefact itself, on ONNX Runtime.

    Args:
        path: of ``sa-deploy adopt``, at FP32.
        precision: of what is written.
        gates: what it must keep.
        sources: crops to compare on and to calibrate on.
        on_note: called with a sentence about what takes long.

    Raises:
        InputError: an artefact that is not of FP32, where another precision is asked for.
    """
    onnx = require("onnx", extra="cpu", purpose="exporting adopted models")
    contract: Contract = read_contract(path)
    if contract.precision != "fp32":
        raise InputError(
            f"{path}: is {contract.precision}; expected the artefact at fp32, of which the others "
            "are made"
        )
    height, width = contract.input.height, contract.input.width
    crops = validation_crops(
        sources.validation, height=height, width=width, limit=sources.validation_limit
    )
    calibration = None
    if precision == "int8":
        seen = calibration_crops(
            sources.calibration, height=height, width=width, limit=sources.calibration_limit
        )
        calibration = Calibration(
            images=seen.images,
            source=seen.source,
            calibrator=sources.calibrator,
            target=sources.int8_target,
        )
    with open_runner(path, "onnxruntime") as runner:
        step = contract.max_batch or 16
        parts = [runner.run(crops.images[i : i + step]) for i in range(0, len(crops), step)]

    return GraphExporter(
        onnx.load(str(path)),
        contract,
        crops,
        np.concatenate(parts),
        precision=precision,
        gates=gates,
        calibration=calibration,
        on_note=on_note,
    )
