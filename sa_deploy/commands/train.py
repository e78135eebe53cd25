"""``sa-deploy train``: weights from a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress


def train(
    data_dir: Annotated[Path, typer.Option(help="Folder of the data set.")],
    dataset: Annotated[
        str, typer.Option("-d", "--dataset", help="Layout of the data set: market, synthetic, ...")
    ] = "market",
    recipe: Annotated[str, typer.Option(help="How to train: sa (the default) or tiny.")] = "sa",
    out: Annotated[
        Path, typer.Option("--out", "--log", "--logs-dir", help="Folder of the run.")
    ] = Path("runs/train"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", min=2, help="Instead of the recipe's.")
    ] = None,
    workers: Annotated[
        int, typer.Option("-j", "--workers", min=0, help="Processes that decode images.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 1,
    resume: Annotated[
        Path | None, typer.Option(help="Checkpoint of an interrupted run to go on from.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    json_output: JsonFlag = False,
) -> None:
    """Train the SA network and leave checkpoint.pt and metrics.jsonl in the run's folder."""
    from sa_runtime.datasets.table import load_dataset
    from sa_training.loop import CHECKPOINT, Progress, TrainingOptions, train_network
    from sa_training.recipes import recipe as recipe_by_name

    chosen = recipe_by_name(recipe)
    if epochs is not None:
        chosen = dataclasses.replace(chosen, epochs=epochs)
    if batch_size is not None:
        chosen = dataclasses.replace(chosen, batch=batch_size)
    images = load_dataset(dataset, data_dir)
    options = TrainingOptions(
        out=out,
        seed=seed,
        workers=workers,
        device=device,
        precision=precision,
        max_steps=max_steps,
    )
    last: list[Progress] = []
    with progress(f"train {recipe}", total=None) as advance:

        def on_step(state: Progress) -> None:
            last[:] = [state]
            advance(
                total=state.steps,
                completed=state.step,
                description=(
                    f"epoch {state.epoch} loss {state.loss:.2f} "
                    f"accuracy {100 * state.accuracy:.0f} % {state.images_per_s:.0f} images/s"
                ),
            )

        checkpoint = train_network(chosen, images, options, resume=resume, on_step=on_step)
    result = {
        "checkpoint": str(out / CHECKPOINT),
        "recipe": chosen.name,
        "epochs": checkpoint.epoch,
        "steps": last[0].step if last else 0,
        "loss": last[0].loss if last else None,
        "images_per_s": last[0].images_per_s if last else None,
    }
    if json_output:
        print_json(result)
    else:
        print_table("Training", ("what", "value"), [(k, v) for k, v in result.items()])
        note(f"next: sa-deploy export --onnx {out / CHECKPOINT} --out {out}")
