"""From a checkpoint to a proven artefact in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sa_export.artefact_files import Artefact
from sa_export.artefacts import Exporter
from sa_export.crop_sets import calibration_crops, validation_crops
from sa_export.gates import gates_for
from sa_export.kinds import InputKind
from sa_export.options import FORMATS, ExportOptions, Format
from sa_export.quantize.quantizer import Calibration
from sa_export.quantize.scheme import Target
from sa_runtime.artefact.contract import Precision
from sa_runtime.errors import bad_value
from sa_training.checkpoints import Checkpoint, load_checkpoint
from sa_training.ranges import Calibrator
from sa_training.recipes import recipe as recipe_by_name

VALIDATION_CROPS, CALIBRATION_CROPS = 2000, 512
"""The largest number of crops to compare on, and to calibrate on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropSources:
    """Which crops an artefact is compared on, and which int8 ranges are taken from.

    Attributes:
        validation: a folder in Market-1501's layout or any folder of crops; ``None`` draws a small
            set.
        validation_limit: take whole people until about this number of crops is reached.
        calibration: a folder of crops, or what ``sa-deploy embed`` wrote; ``None`` draws a small
            set.
        calibration_limit: the largest number of crops to calibrate on.
        calibrator: how a range is taken from them.
        int8_target: what an int8 artefact is for; ``None``: ``cpu`` for OpenVINO, ``any`` for ONNX.
    """

    validation: Path | None = None
    validation_limit: int = VALIDATION_CROPS
    calibration: Path | None = None
    calibration_limit: int = CALIBRATION_CROPS
    calibrator: Calibrator = "percentile"
    int8_target: Target | None = None


def export_model(
    checkpoint: Checkpoint | Path | str,
    out: Path | str,
    *,
    format: Format = "onnx",
    precision: Precision = "fp32",
    recipe: str | None = None,
    embeddings: tuple[str, ...] = ("parts",),
    input: InputKind = "uint8-nhwc",
    height: int | None = None,
    width: int | None = None,
    batch: int | None = None,
    validation: Path | str | None = None,
    calibration: Path | str | None = None,
    max_map_drop: float | None = None,
    min_cosine: float | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Artefact:
    """Write an artefact that finds the same people as its network, as ``sa-deploy export`` does.

    ::

        artefact = export_model("run/checkpoint.pt", "run")
        print(artefact.path, artefact.contract.space, artefact.parity["parts"].min_cosine)

    Args:
        checkpoint: a file that ``sa-deploy train`` or the authors' code wrote, or one that is
            loaded.
        out: folder for the artefact and its report, ``FILE.parity.json``.
        format: ``onnx``, ``openvino``, ``torchscript`` or ``torch-export``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        recipe: name of the recipe of a file that does not say its own.
        embeddings: ``parts`` (the authors' test feature), ``global`` or ``reduced``; the first is
            what runners return by default.
        input: ``uint8-nhwc`` (BGR as OpenCV gives it) or ``nchw-float`` (RGB, 0 to 1).
        height: of the input in pixels, the network's own by default.
        width: of the input in pixels, the network's own by default.
        batch: a fixed batch size; any size by default.
        validation: crops to compare artefact and network on: a folder in Market-1501's layout, or
            any folder of crops; a small generated set by default.
        calibration: crops that int8 ranges are taken from: a folder, or a Parquet file of
            ``sa-deploy embed``; a small generated set by default.
        max_map_drop: points of mAP that the artefact may lose; 0.5 by default.
        min_cosine: least cosine to the network on the worst crop; by default that of the precision.
        on_note: called with a sentence about what takes long.

    Returns:
        What was written: ``path``, ``contract``, ``size_bytes``, and ``parity`` by embedding.

    Raises:
        CheckpointError: weights that cannot be loaded.
        InputError: options that do not fit the network or each other, or crops that are not there.
        ParityError: the artefact disagrees with its network; no file is left.
        MissingPackageError: a package that writes or runs the format is not installed.
    """
    if format not in FORMATS:
        raise bad_value("format", format, f"unknown; choose from {', '.join(FORMATS)}")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_weights_of(Path(checkpoint), recipe)
    options = ExportOptions(
        embeddings=embeddings,
        input=input,
        precision=precision,
        height=height,
        width=width,
        batch=batch,
    )
    gates = gates_for(options.precision, max_map_drop=max_map_drop, min_cosine=min_cosine)
    options = dataclasses.replace(options, gates=gates)
    crops = CropSources(
        validation=None if validation is None else Path(validation),
        calibration=None if calibration is None else Path(calibration),
    )
    exporter = exporter_from_checkpoint(checkpoint, options, crops, on_note=on_note)
    return exporter.write(format, Path(out))


def load_weights_of(path: Path, recipe: str | None = None) -> Checkpoint:
    """A checkpoint, with the recipe that its file states, or the named one where it states none.

    Raises:
        CheckpointError: weights that cannot be loaded.
        InputError: an unknown recipe, or a file that says another one.
    """
    named = None if recipe is None else recipe_by_name(recipe)
    checkpoint = load_checkpoint(path, named)
    if named is not None and checkpoint.recipe.name != named.name:
        rule = f"{path} says its own recipe, {checkpoint.recipe.name}; leave it out"
        raise bad_value("recipe", recipe, rule)
    return checkpoint


def exporter_from_checkpoint(
    checkpoint: Checkpoint,
    options: ExportOptions,
    crops: CropSources | None = None,
    *,
    on_note: Callable[[str], None] = lambda text: None,
) -> Exporter:
    """An exporter with its crops, cut at the size of the network's input.

    Args:
        checkpoint: the weights.
        options: what to write.
        crops: where they come from; generated ones by default.
        on_note: called with a sentence about what takes long.

    Raises:
        InputError: options that do not fit the network or each other, or crops that are not there.
    """
    crops = crops or CropSources()
    config = checkpoint.network.config
    height, width = options.height or config.height, options.width or config.width
    calibration = None
    if options.precision == "int8":
        seen = calibration_crops(
            crops.calibration, height=height, width=width, limit=crops.calibration_limit
        )
        calibration = Calibration(
            images=seen.images,
            source=seen.source,
            calibrator=crops.calibrator,
            target=crops.int8_target,
        )
    return Exporter(
        checkpoint,
        options,
        validation_crops(
            crops.validation, height=height, width=width, limit=crops.validation_limit
        ),
        calibration=calibration,
        on_note=on_note,
    )
