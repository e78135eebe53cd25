"""Models of others as artefacts: uint8 crops in, unit vectors out, a contract inside."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sa_export.crop_set import CropSet
from sa_export.foreign import ForeignModel, reference_vectors
from sa_export.gates import Gates
from sa_export.graph_exporter import GraphExporter
from sa_export.graph_flops import graph_flops
from sa_export.kinds import InputKind
from sa_export.openvino_workarounds import rewrite_trapped
from sa_export.options import FORMATS, SUFFIXES, Format
from sa_export.parity import Parity
from sa_export.preprocessing import Preprocessing
from sa_export.quantize.quantizer import Calibration
from sa_export.slips import check_vectors
from sa_export.space import probe_crops, vectors_space
from sa_export.wrapping import wrap
from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec, Precision
from sa_runtime.errors import bad_value
from sa_runtime.system.files import refuse_inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdoptedModel:
    """What was written.

    Attributes:
        path: the artefact.
        contract: as it stands inside.
        parity: of the artefact to the file it was made from.
        rewritten: nodes that OpenVINO would have computed wrongly.
        warnings: what may be wrong with what the user said, or was taken for granted.
    """

    path: Path
    contract: Contract
    parity: Parity
    rewritten: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": str(self.path),
            "rewritten_reductions": self.rewritten,
            "space": self.contract.space,
            "dim": self.contract.output.dim,
            "precision": self.contract.precision,
            "flops": self.contract.flops,
            "parity": self.parity.to_dict(),
            "warnings": list(self.warnings),
        }


def adopt(
    foreign: ForeignModel,
    target: Path,
    preprocessing: Preprocessing,
    crops: CropSet,
    gates: Gates,
    *,
    embedding: str = "adopted",
    input_kind: InputKind = "uint8-nhwc",
    precision: Precision | None = None,
    calibration: Calibration | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> AdoptedModel:
    """Write a foreign model as an artefact and compare it with the original.

    Normalisation is put in front and scaling to unit length behind; reductions that OpenVINO
    computes wrongly are rewritten.

    Args:
        foreign: the original; it is not changed.
        target: the artefact, whose suffix says its format: ``.onnx``, ``.xml`` or ``.torchscript``.
        preprocessing: what the original expects.
        crops: to compare on, at the original's size.
        gates: what the artefact must keep.
        embedding: a name for its vectors.
        input_kind: images that the artefact takes: uint8 BGR as OpenCV gives it, or float RGB from
            0 to 1.
        precision: of the artefact; the original's own by default.
        calibration: where int8 ranges come from; needed for that precision only.
        on_note: called with a sentence about what takes long.

    Raises:
        InputError: the target is the original, its suffix is of no format, or the original gives
            about the same vector for every crop.
        ParityError: the artefact disagrees with the original; nothing is left.
    """
    refuse_inputs(target, [foreign.path])
    kind = format_of(target)
    reference = reference_vectors(foreign, crops.images, preprocessing)
    warnings = check_vectors(reference, foreign, preprocessing, crops)
    contract = contract_of_foreign(foreign, preprocessing, embedding, input_kind)
    model = type(foreign.model).FromString(foreign.model.SerializeToString())
    rewritten = rewrite_trapped(model)
    wrap(model, foreign, preprocessing, input_kind)
    exporter = GraphExporter(
        model,
        contract,
        crops,
        reference,
        precision=precision or contract.precision,
        gates=gates,
        calibration=calibration,
        network=foreign.network,
        preprocessing=preprocessing,
        on_note=on_note,
    )
    written = exporter.write_file(kind, target)
    return AdoptedModel(
        path=target,
        contract=written.contract,
        parity=written.parity[embedding],
        rewritten=rewritten,
        warnings=tuple(warnings),
    )


def format_of(target: Path) -> Format:
    """The format that a target's suffix says.

    Raises:
        InputError: none that an adopted model is written in.
    """
    for kind in FORMATS:
        if SUFFIXES[kind] == target.suffix and kind != "torch-export":
            return kind
    raise bad_value("out", str(target), "expected a name that ends in .onnx, .xml or .torchscript")


def contract_of_foreign(
    foreign: ForeignModel,
    preprocessing: Preprocessing,
    embedding: str,
    input_kind: InputKind = "uint8-nhwc",
) -> Contract:
    """The contract of an adopted model, without parity."""
    operators = {node.op_type for node in foreign.model.graph.node}
    precision: Precision = "fp16" if foreign.half else "fp32"
    if operators & {"QuantizeLinear", "QLinearConv", "ConvInteger"}:
        precision = "int8"
    said: dict[str, Any] = {
        "adopted_from": foreign.path.name,
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    if foreign.network is not None:
        said |= {"family": foreign.network.family, "architecture": foreign.network.arch}
    images = InputSpec(height=foreign.height, width=foreign.width)
    if input_kind == "nchw-float":
        images = dataclasses.replace(images, layout="nchw", dtype="float32", colour="rgb")
    probes = probe_crops(foreign.height, foreign.width)
    return Contract(
        input=images,
        output=OutputSpec(embedding=embedding, dim=foreign.dim),
        # As JSON gives it back, which knows no tuples.
        network=json.loads(json.dumps(said)),
        weights_sha256=foreign.weights or _graph_weights(foreign),
        space=vectors_space(reference_vectors(foreign, probes, preprocessing)),
        precision=precision,
        max_batch=foreign.batch,
        fixed_batch=foreign.batch is not None,
        flops=_flops(foreign),
        producer=f"sa-deploy {version('sa-deploy')}",
    )


def _flops(foreign: ForeignModel) -> int:
    """Of an image: by the graph, or by torch where the graph's shapes cannot be told."""
    counted = graph_flops(foreign.model, foreign.image, foreign.shape) // foreign.shape[0]
    if counted or foreign.network is None:
        return counted
    from sa_export.look_torch import network_flops

    return network_flops(foreign.network)


def _graph_weights(foreign: ForeignModel) -> str:
    digest = hashlib.sha256()
    for item in sorted(foreign.model.graph.initializer, key=lambda item: item.name):
        digest.update(item.name.encode() + item.SerializeToString())
    return digest.hexdigest()
