"""``sa-deploy adopt``: an ONNX file of others becomes an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy.options import JsonOutput, Validation, ValidationCrops
from sa_deploy.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_export.adopt import AdoptedModel


def adopt(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="ONNX file of torchreid, fast-reid, BoxMOT or another project."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="ONNX file (.onnx) that is written.")],
    height: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Height of the crops, where the graph leaves it open; the graph's by default.",
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Width of the crops, where the graph leaves it open; the graph's by default.",
        ),
    ] = None,
    mean: Annotated[
        str,
        typer.Option(
            metavar="A,B,C",
            help="Mean that is subtracted from the divided pixels, a channel each, in the order "
            "of --colour.",
        ),
    ] = "0.485,0.456,0.406",
    std: Annotated[
        str,
        typer.Option(
            metavar="A,B,C",
            help="Standard deviation that the difference is divided by, a channel each, in the "
            "order of --colour.",
        ),
    ] = "0.229,0.224,0.225",
    divisor: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Number that pixels of 0 to 255 are divided by first; 1 leaves them as they are.",
        ),
    ] = 255.0,
    colour: Annotated[
        Literal["rgb", "bgr"],
        typer.Option("--colour", "--color", help="Order of the channels that the model expects."),
    ] = "rgb",
    embedding: Annotated[
        str, typer.Option(metavar="NAME", help="Name that its vectors get.")
    ] = "adopted",
    image_input: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Input that takes the images, for a graph of several; its only one by default.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Output that gives the vectors, for a graph of several; its only one by default.",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool,
        typer.Option("--dynamic-batch", help="Turn a batch axis of fixed size into a free one."),
    ] = False,
    validation: Validation = None,
    validation_crops: ValidationCrops = 500,
    json_output: JsonOutput = False,
) -> None:
    """Give a foreign ONNX model a contract, after a parity check.

    What is written takes uint8 crops and gives unit-length vectors.

    Examples:
        sa-deploy adopt osnet.onnx --out reid.onnx
        sa-deploy adopt sbs.onnx --out reid.onnx --height 256 --width 128
    """
    from sa_export import crop_sets
    from sa_export.adopt import adopt as adopt_model
    from sa_export.foreign import ModelHints, Preprocessing, read_foreign
    from sa_export.parity import DEFAULT_GATES

    preprocessing = Preprocessing(
        colour=colour,
        divisor=divisor,
        mean=_three(mean, "--mean"),
        std=_three(std, "--std"),
    )
    wanted = ModelHints(
        height=height, width=width, image=image_input, output=output, dynamic=dynamic_batch
    )
    foreign = read_foreign(model, wanted)
    crops = crop_sets.validation_crops(
        validation, height=foreign.height, width=foreign.width, limit=validation_crops
    )
    with progress(f"adopt {model.name}, {len(crops)} crops", None):
        adopted = adopt_model(
            foreign, out, preprocessing, crops, DEFAULT_GATES["fp32"], embedding=embedding
        )
    if json_output:
        print_json(adopted.to_dict())
    else:
        _print(adopted)


def _print(adopted: AdoptedModel) -> None:
    path, output = adopted.path, adopted.contract.output
    rows = [
        ("embedding", f"{output.embedding}, {output.dim} numbers"),
        ("feature space", adopted.contract.space),
        ("reductions rewritten for OpenVINO", str(adopted.rewritten)),
        *adopted.parity.rows(),
    ]
    print_table(str(path), ("what", "value"), rows, figures=False)
    note(f"next: sa-deploy inspect {path}; sa-deploy embed {path} IMAGES --out embeddings.parquet")


def _three(text: str, flag: str) -> tuple[float, float, float]:
    from sa_runtime.errors import InputError

    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InputError(f"{flag} {text}: expected three numbers with commas between") from exc
    return first, second, third
