"""``sa-deploy adopt``: an ONNX file of others becomes an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table


def adopt(
    model: Annotated[Path, typer.Argument(help="An ONNX file of torchreid, fast-reid, BoxMOT...")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    height: Annotated[
        int | None, typer.Option(min=1, help="Of the crops, where the graph leaves it open.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the crops, where the graph leaves it open.")
    ] = None,
    mean: Annotated[
        str, typer.Option(help="Of the divided pixels, in the order of --colour.")
    ] = "0.485,0.456,0.406",
    std: Annotated[
        str, typer.Option(help="Of the divided pixels, in the order of --colour.")
    ] = "0.229,0.224,0.225",
    divisor: Annotated[
        float, typer.Option(help="What pixels of 0..255 are divided by first; 1 for none.")
    ] = 255.0,
    colour: Annotated[str, typer.Option("--colour", "--color", help="rgb or bgr.")] = "rgb",
    embedding: Annotated[str, typer.Option(help="A name for its vectors.")] = "adopted",
    image_input: Annotated[
        str | None, typer.Option(help="Name of the input, where there are several.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Name of the embedding, where there are several outputs.")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Make a fixed batch axis dynamic.")
    ] = False,
    validation: Annotated[
        Path | None,
        typer.Option(help="Crops to compare on, as `sa-deploy export` takes them."),
    ] = None,
    validation_crops: Annotated[int, typer.Option(min=4, help="Use about so many.")] = 500,
    json_output: JsonFlag = False,
) -> None:
    """Give a foreign ONNX model a contract, after a parity check.

    What is written takes uint8 crops and gives unit-length vectors.
    """
    from sa_export import crop_sets
    from sa_export.adopt import adopt as adopt_model
    from sa_export.foreign import Preprocessing, Wanted, read_foreign
    from sa_export.parity import DEFAULT_GATES

    preprocessing = Preprocessing(
        colour=colour,  # type: ignore[arg-type]
        divisor=divisor,
        mean=_three(mean, "--mean"),
        std=_three(std, "--std"),
    )
    wanted = Wanted(
        height=height, width=width, image=image_input, output=output, dynamic=dynamic_batch
    )
    foreign = read_foreign(model, wanted)
    crops = crop_sets.validation_crops(
        validation, height=foreign.height, width=foreign.width, limit=validation_crops
    )
    adopted = adopt_model(
        foreign, out, preprocessing, crops, DEFAULT_GATES["fp32"], embedding=embedding
    )
    if json_output:
        print_json(
            {
                "file": str(out),
                "rewritten_reductions": adopted.rewritten,
                "space": adopted.contract.space,
                "dim": adopted.contract.output.dim,
                "parity": adopted.parity.to_dict(),
            }
        )
        return
    rows = [
        ("embedding", f"{embedding}, {adopted.contract.output.dim} numbers"),
        ("feature space", adopted.contract.space),
        ("reductions rewritten for OpenVINO", str(adopted.rewritten)),
        *adopted.parity.rows(),
    ]
    print_table(str(out), ("what", "value"), rows, figures=False)
    note(f"next: sa-deploy inspect {out}; sa-deploy embed {out} IMAGES --out embeddings.parquet")


def _three(text: str, flag: str) -> tuple[float, float, float]:
    from sa_runtime.errors import InputError

    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InputError(f"{flag} {text}: expected three numbers with commas between") from exc
    return first, second, third
