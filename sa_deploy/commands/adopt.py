"""``sa-deploy adopt``: a model of others becomes an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy.options import JsonOutput, Validation
from sa_deploy.output import command_line, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_export.adopt import AdoptedModel
    from sa_export.foreign import ForeignModel
    from sa_export.gates import Gates
    from sa_export.preprocessing import Preprocessing, PreprocessingHints
    from sa_export.quantize.quantizer import Calibration
    from sa_runtime.artefact.contract import Precision
    from sa_training.ranges import Calibrator

_NETWORK, _PIXELS, _PROOF = "The network", "Its pixels", "Precision and proof"


def adopt(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="ONNX or TorchScript file, or checkpoint, of torchreid, fast-reid, BoxMOT, timm "
            "or another project.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File that is written: .onnx, .xml (OpenVINO) or .torchscript.",
        ),
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_NETWORK,
            help="Architecture of a checkpoint: torchvision/NAME, timm/NAME or a family; told from "
            "the weights by default.",
        ),
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            rich_help_panel=_NETWORK,
            help="Function of yours that makes a checkpoint's network, as package.module:function; "
            "none by default.",
        ),
    ] = None,
    last_stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2,
            metavar="N",
            rich_help_panel=_NETWORK,
            help="Stride of a ResNet's last stage, which weights do not tell; the family's by "
            "default.",
        ),
    ] = None,
    image_input: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_NETWORK,
            help="Input that takes the images, for a graph of several; its only one by default.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_NETWORK,
            help="Output that gives the vectors, for a graph of several; its only one by default.",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool,
        typer.Option(
            "--dynamic-batch",
            rich_help_panel=_NETWORK,
            help="Turn a batch axis of fixed size into a free one.",
        ),
    ] = False,
    embedding: Annotated[
        str,
        typer.Option(metavar="NAME", rich_help_panel=_NETWORK, help="Name that its vectors get."),
    ] = "adopted",
    input_kind: Annotated[
        Literal["uint8-nhwc", "nchw-float"],
        typer.Option(
            "--input",
            rich_help_panel=_PIXELS,
            help="Images that the artefact takes: uint8-nhwc is BGR as OpenCV gives it, "
            "nchw-float is RGB from 0 to 1, as DeepStream gives it.",
        ),
    ] = "uint8-nhwc",
    preprocessing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_PIXELS,
            help="What its framework does to crops: torchreid, fastreid, boxmot, timm, clip-reid, "
            "transreid, imagenet, half, unit or caffe; the family's by default, else imagenet.",
        ),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel=_PIXELS,
            help="Height of the crops, where the model leaves it open; the model's by default.",
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel=_PIXELS,
            help="Width of the crops, where the model leaves it open; the model's by default.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            rich_help_panel=_PIXELS,
            help="Mean that is subtracted from the divided pixels, a channel each, in the order "
            "of --colour; that of --preprocessing by default.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            rich_help_panel=_PIXELS,
            help="Standard deviation that the difference is divided by, a channel each, in the "
            "order of --colour; that of --preprocessing by default.",
        ),
    ] = None,
    divisor: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            rich_help_panel=_PIXELS,
            help="Number that pixels of 0 to 255 are divided by first, 1 to leave them; that of "
            "--preprocessing by default.",
        ),
    ] = None,
    colour: Annotated[
        Literal["rgb", "bgr"] | None,
        typer.Option(
            "--colour",
            "--color",
            rich_help_panel=_PIXELS,
            help="Order of the channels that the model expects; that of --preprocessing by "
            "default.",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(
            rich_help_panel=_PROOF,
            help="Precision of what is written; the model's own by default.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_PROOF,
            metavar="PATH",
            help="Crops that int8 ranges are taken from: a folder, or a Parquet file of "
            "`sa-deploy embed`; a small generated set by default.",
        ),
    ] = None,
    calibrator: Annotated[
        Literal["entropy", "mse", "percentile", "min-max"],
        typer.Option(
            rich_help_panel=_PROOF, help="How an int8 range follows from the values seen."
        ),
    ] = "percentile",
    max_map_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            rich_help_panel=_PROOF,
            metavar="POINTS",
            help="Points of mAP (of 100) that the artefact may lose to the original; 0.5, or 1 at "
            "int8, by default.",
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_PROOF,
            metavar="COSINE",
            help="Least cosine to the original on the worst crop; that of the precision by "
            "default.",
        ),
    ] = None,
    validation: Validation = None,
    validation_crops: Annotated[
        int,
        typer.Option(
            "--validation-crops",
            min=4,
            metavar="CROPS",
            rich_help_panel=_PROOF,
            help="Use about this many of the validation crops, all crops of a person or none.",
        ),
    ] = 64,
    json_output: JsonOutput = False,
) -> None:
    """Give a foreign model a contract, after a parity check.

    What is written takes crops and gives unit-length vectors.

    Examples:
        sa-deploy adopt osnet_x0_25_msmt17.pt --out reid.onnx
        sa-deploy adopt sbs.onnx --out reid.onnx --preprocessing fastreid
    """
    from sa_export import crop_sets
    from sa_export.adopt import adopt as adopt_model
    from sa_export.adopt import format_of
    from sa_export.foreign import ModelHints, read_foreign
    from sa_export.preprocessing import PreprocessingHints
    from sa_runtime.system.files import refuse_inputs

    # What can be refused at once is refused before anything is loaded.
    format_of(out)
    refuse_inputs(out, [model])
    pixels = PreprocessingHints(
        preset=preprocessing,
        colour=colour,
        divisor=divisor,
        mean=_three(mean, "--mean"),
        std=_three(std, "--std"),
    )
    wanted = ModelHints(
        height=height,
        width=width,
        image=image_input,
        output=output,
        dynamic=dynamic_batch,
        arch=arch,
        factory=factory,
        last_stride=last_stride,
    )
    with progress(f"read {model.name}", None):
        foreign = read_foreign(model, wanted)
    chosen = _pixels(foreign, pixels, context)
    gates = _gates(foreign, precision, max_map_drop, min_cosine)
    crops = crop_sets.validation_crops(
        validation, height=foreign.height, width=foreign.width, limit=validation_crops
    )
    ranges = _ranges(foreign, calibration, calibrator) if precision == "int8" else None
    with progress(f"adopt {foreign.source}, {len(crops)} crops", None):
        adopted = adopt_model(
            foreign,
            out,
            chosen,
            crops,
            gates,
            embedding=embedding,
            input_kind=input_kind,
            precision=precision,
            calibration=ranges,
            on_note=note,
        )
    _notes(adopted, foreign, context)
    if json_output:
        print_json(adopted.to_dict())
    else:
        _print(adopted, foreign, chosen)


def _warn(text: str, context: typer.Context) -> None:
    """A warning of the floors with this command's options for the parameters that it names."""
    from sa_deploy.errors import for_command
    from sa_runtime.errors import InputError

    note(f"warning: {for_command(InputError(text), context.command)}")


def _pixels(
    foreign: ForeignModel, hints: PreprocessingHints, context: typer.Context
) -> Preprocessing:
    from sa_export.preprocessing import chosen_preprocessing

    network = foreign.network
    known = network is not None and network.family not in ("a factory", "TorchScript")
    chosen, warnings = chosen_preprocessing(
        hints,
        own=network.preprocessing if network is not None and known else None,
        stated=None if network is None else network.stated,
        name=foreign.source if known else foreign.path.name,
    )
    for text in warnings:
        _warn(text, context)
    if not known and hints.preset is None and not hints.given():
        note(
            f"warning: {foreign.path.name} does not say what its pixels are; taken: {chosen}. Name "
            "what it was trained with by --preprocessing"
        )
    return chosen


def _gates(
    foreign: ForeignModel,
    precision: Precision | None,
    max_map_drop: float | None,
    min_cosine: float | None,
) -> Gates:
    from sa_export.gates import gates_for

    kind = precision or ("fp16" if foreign.half else "fp32")
    drop = 1.0 if max_map_drop is None and kind == "int8" else max_map_drop
    return gates_for(kind, max_map_drop=drop, min_cosine=min_cosine)


def _notes(adopted: AdoptedModel, foreign: ForeignModel, context: typer.Context) -> None:
    for text in adopted.warnings:
        _warn(text, context)
    if foreign.batch is not None:
        note(
            f"the graph takes batches of exactly {foreign.batch}; --dynamic-batch frees it, where "
            "the graph allows"
        )


def _ranges(foreign: ForeignModel, folder: Path | None, calibrator: Calibrator) -> Calibration:
    from sa_export.crop_sets import calibration_crops
    from sa_export.quantize.quantizer import Calibration

    seen = calibration_crops(folder, height=foreign.height, width=foreign.width)
    return Calibration(images=seen.images, source=seen.source, calibrator=calibrator)


def _print(adopted: AdoptedModel, foreign: ForeignModel, chosen: Preprocessing) -> None:
    path, contract = adopted.path, adopted.contract
    rows = [
        ("adopted from", f"{foreign.path.name}, {foreign.source}"),
        ("crops", f"{foreign.height}x{foreign.width}, {chosen}"),
        ("embedding", f"{contract.output.embedding}, {contract.output.dim} numbers"),
        ("work", f"{contract.flops / 1e9:.2f} GFLOP an image" if contract.flops else "not known"),
        ("precision", contract.precision),
        ("feature space", contract.space),
        ("reductions rewritten for OpenVINO", str(adopted.rewritten)),
        *adopted.parity.rows(),
    ]
    print_table(str(path), ("what", "value"), rows, figures=False)
    words = ("embed", path, "IMAGES", "--out", "embeddings.parquet")
    note(f"next: {command_line('inspect', path)}; {command_line(*words)}")


def _three(text: str | None, flag: str) -> tuple[float, float, float] | None:
    from sa_runtime.errors import InputError

    if text is None:
        return None
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InputError(f"{flag} {text}: expected three numbers with commas between") from exc
    return first, second, third
