"""``sa-deploy export``: artefacts from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table


def export(
    weights: Annotated[
        Path, typer.Argument(help="A checkpoint of `sa-deploy train` or the authors'.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the artefacts.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx.")] = False,
    embedding: Annotated[
        str, typer.Option(help="parts (the authors' test feature), global or reduced.")
    ] = "parts",
    opset: Annotated[int, typer.Option(min=18, help="Of the standard ONNX operators.")] = 18,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Folder of crops to compare file and network on; generated ones by default."
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Write artefacts that have been run against the network on crops of people."""
    from sa_runtime.errors import InputError

    if not onnx:
        raise InputError("no format chosen; expected --onnx")
    from sa_export.artefacts import export_onnx
    from sa_export.crops import validation_crops
    from sa_training.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(weights)
    config = checkpoint.network.config
    images = validation_crops(crops, height=config.height, width=config.width).images
    target = out / "model.onnx"
    parity = export_onnx(checkpoint, target, images, embedding=embedding, opset=opset)
    result = {
        "file": str(target),
        "size_bytes": target.stat().st_size,
        "embedding": embedding,
        "crops": parity.crops,
        "batches": list(parity.batches),
        "min_cosine": parity.min_cosine,
        "max_difference": parity.max_difference,
    }
    if json_output:
        print_json(result)
    else:
        print_table("Export", ("what", "value"), [(k, v) for k, v in result.items()])
        note(f"next: sa-deploy embed {target} IMAGES --out embeddings.parquet")
