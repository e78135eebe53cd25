"""``sa-deploy export``: artefacts from weights, each proven on crops of people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy.options import JsonOutput, Validation, ValidationCrops
from sa_deploy.output import command_line, note, print_json, print_table, progress
from sa_runtime.errors import InputError

if TYPE_CHECKING:
    from sa_export.artefacts import Exporter
    from sa_export.export import CropSources
    from sa_export.gates import Gates
    from sa_export.graph_exporter import GraphExporter
    from sa_export.options import ExportOptions, Format

_FORMATS, _INT8 = "Formats", "Precision and proof"


def export(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Checkpoint of `sa-deploy train`, one of the authors', other weights that "
            "--recipe fits, or an ONNX artefact of `sa-deploy adopt`.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder that the artefacts are written to.")
    ],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            rich_help_panel=_FORMATS,
            help="Formats to write, joined by commas: onnx, openvino, torchscript, torch-export; "
            "none by default, so that one at least is named.",
        ),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", rich_help_panel=_FORMATS, help="Write an ONNX file; as --format onnx."
        ),
    ] = False,
    openvino: Annotated[
        bool,
        typer.Option(
            "--openvino",
            rich_help_panel=_FORMATS,
            help="Write model.xml and model.bin (OpenVINO IR); as --format openvino.",
        ),
    ] = False,
    torchscript: Annotated[
        bool,
        typer.Option(
            "--torchscript",
            rich_help_panel=_FORMATS,
            help="Write model.torchscript for libtorch; as --format torchscript.",
        ),
    ] = False,
    torch_export: Annotated[
        bool,
        typer.Option(
            "--torch-export",
            rich_help_panel=_FORMATS,
            help="Write model.pt2 of torch.export; as --format torch-export.",
        ),
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recipe of weights that do not say their own, such as sa or tiny; the "
            "checkpoint's own by default.",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(
            rich_help_panel=_INT8, help="Precision of the weights and of what is computed."
        ),
    ] = "fp32",
    embedding: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Vectors that the artefact gives: parts (the authors' test feature), global or "
            "reduced; several joined by commas, the first being what runtimes return.",
        ),
    ] = "parts",
    input_kind: Annotated[
        Literal["uint8-nhwc", "nchw-float"],
        typer.Option(
            "--input",
            help="Images that the graph takes: uint8-nhwc is BGR as OpenCV gives it, nchw-float is "
            "RGB from 0 to 1.",
        ),
    ] = "uint8-nhwc",
    height: Annotated[
        int | None,
        typer.Option(
            min=16, metavar="PIXELS", help="Height of the crops; the network's by default."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=16, metavar="PIXELS", help="Width of the crops; the network's by default."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="CROPS", help="Fixed batch size; any size by default."),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            min=18,
            metavar="N",
            help="Version of the standard ONNX operators; 18 by default, 22 for bf16.",
        ),
    ] = None,
    attention_map: Annotated[
        bool,
        typer.Option("--attention-map", help="Give the attention map as a further output."),
    ] = False,
    plugin: Annotated[
        bool,
        typer.Option(
            help="Write AttentionPool as one node, which TensorRT can fuse, or as standard "
            "operators."
        ),
    ] = True,
    validation: Validation = None,
    validation_crops: ValidationCrops = 2000,
    int8_target: Annotated[
        Literal["tensorrt", "cpu", "any"] | None,
        typer.Option(
            rich_help_panel=_INT8,
            help="Scheme of int8: tensorrt (symmetric, the rest in fp16), cpu (uint8 activations) "
            "or any (symmetric); cpu by default for OpenVINO, any for ONNX.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_INT8,
            metavar="PATH",
            help="Crops that int8 ranges are taken from: a folder, or a Parquet file of "
            "`sa-deploy embed`; a small generated set by default.",
        ),
    ] = None,
    calibration_crops: Annotated[
        int,
        typer.Option(
            min=4,
            rich_help_panel=_INT8,
            metavar="CROPS",
            help="Use at most this many of the calibration crops.",
        ),
    ] = 512,
    calibrator: Annotated[
        Literal["entropy", "mse", "percentile", "min-max"],
        typer.Option(rich_help_panel=_INT8, help="How an int8 range follows from the values seen."),
    ] = "percentile",
    max_map_drop: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=_INT8,
            metavar="POINTS",
            help="Points of mAP (of 100) that the artefact may lose to its network.",
        ),
    ] = 0.5,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_INT8,
            metavar="COSINE",
            help="Least cosine to the network on the worst crop; that of the precision by default.",
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Write artefacts that find the same people as their network.

    Each is compared with its network on crops of people; one that disagrees is not left.

    Examples:
        sa-deploy export run/checkpoint.pt --onnx --out run
        sa-deploy export run/checkpoint.pt --format onnx,openvino --out run
    """
    given = {
        "onnx": onnx,
        "openvino": openvino,
        "torchscript": torchscript,
        "torch-export": torch_export,
    }
    wanted = _wanted(formats, [name for name, flag in given.items() if flag])
    import dataclasses

    from sa_export.adopted_exporter import is_adopted
    from sa_export.export import CropSources, exporter_from_checkpoint, load_weights_of
    from sa_export.gates import gates_for
    from sa_export.options import ExportOptions

    options = ExportOptions(
        embeddings=tuple(name.strip() for name in embedding.split(",")),
        input=input_kind,
        attention_map=attention_map,
        precision=precision,
        height=height,
        width=width,
        opset=opset,
        batch=batch_size,
        plugin=plugin,
    )
    gates = gates_for(options.precision, max_map_drop=max_map_drop, min_cosine=min_cosine)
    crops = CropSources(
        validation=validation,
        validation_limit=validation_crops,
        calibration=calibration,
        calibration_limit=calibration_crops,
        calibrator=calibrator,
        int8_target=int8_target,
    )
    exporter: Exporter | GraphExporter
    if is_adopted(weights):
        exporter = _of_adopted(weights, options, gates, crops, recipe)
    else:
        options = dataclasses.replace(options, gates=gates)
        checkpoint = load_weights_of(weights, recipe)
        exporter = exporter_from_checkpoint(checkpoint, options, crops, on_note=note)
    artefacts = []
    for kind in wanted:
        with progress(f"export {kind}", None):
            artefacts.append(exporter.write(kind, out))
    if json_output:
        print_json({"artefacts": [artefact.to_dict() for artefact in artefacts]})
        return
    for artefact in artefacts:
        print_table(str(artefact.path), ("what", "value"), artefact.rows(), figures=False)
    words = ("embed", artefacts[0].path, "IMAGES", "--out", "embeddings.parquet")
    note(f"next: {command_line(*words)}")


def _of_adopted(
    weights: Path, options: ExportOptions, gates: Gates, crops: CropSources, recipe: str | None
) -> GraphExporter:
    """Options that an adopted graph cannot follow are refused."""
    from sa_export.adopted_exporter import exporter_from_adopted
    from sa_export.options import ExportOptions

    plain = ExportOptions(precision=options.precision)
    named = ("embeddings", "input", "attention_map", "height", "width", "opset", "batch", "plugin")
    changed = [name for name in named if getattr(options, name) != getattr(plain, name)]
    if changed or recipe is not None:
        listed = ", ".join(f"`{name}`" for name in (changed or ["recipe"]))
        raise InputError(
            f"{weights}: an adopted model is exported as it is; leave {listed} out, or adopt the "
            "original again"
        )
    return exporter_from_adopted(weights, options.precision, gates, crops, on_note=note)


def _wanted(formats: str | None, flags: list[str]) -> list[Format]:
    """The formats of ``--format`` and of the flags, each once, in the order they are written.

    Raises:
        InputError: none, or an unknown one.
    """
    from sa_export.options import FORMATS

    named = [name.strip() for name in formats.split(",")] if formats else []
    for name in named:
        if name not in FORMATS:
            raise InputError(f"--format {name}: unknown; choose from {', '.join(FORMATS)}")
    wanted = [kind for kind in FORMATS if kind in (*named, *flags)]
    if not wanted:
        raise InputError(f"no format chosen; expected --format with one of {', '.join(FORMATS)}")
    return wanted
