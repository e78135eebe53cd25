"""``sa-deploy demo``: the whole way, from nothing to embeddings and a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.retrieval.evaluation import RetrievalReport


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path(
        "out/demo"
    ),
    identities: Annotated[int, typer.Option(min=20, help="People of the generated world.")] = 200,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the tiny recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the world and of the training.")] = 1,
    json_output: JsonFlag = False,
) -> None:
    """Draw a world, train, export, embed a video and evaluate."""

    import numpy as np

    from sa_export.export import export_model
    from sa_export.parity import network_embed
    from sa_runtime.crops import read_image, resize
    from sa_runtime.datasets.synthetic import SyntheticConfig, work, write_synthetic
    from sa_runtime.datasets.table import load_dataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.pipeline.embed import embed
    from sa_runtime.retrieval.evaluation import evaluate, evaluate_embedder
    from sa_runtime.retrieval.picture import ranking_picture
    from sa_training.train import train_model

    began = time.perf_counter()
    world, run = out / "world", out / "run"
    model, people, picture = run / "model.onnx", out / "people.parquet", out / "matches.png"
    video, boxes = world / "videos" / "c1.mp4", world / "videos" / "c1.gt.txt"

    step(f"sa-deploy data synth {world} --identities {identities} --seed {seed}")
    config = SyntheticConfig(identities=identities, seed=seed, videos=1)
    with progress("drawing", work(config)) as advance:
        write_synthetic(world, config, force=True, on_progress=advance)
    dataset = load_dataset("synthetic", world)

    step(f"sa-deploy train -d synthetic --data-dir {world} --recipe tiny --seed {seed} --out {run}")
    with progress("training", None) as advance:
        checkpoint = train_model(
            dataset,
            out=run,
            recipe="tiny",
            changes={} if epochs is None else {"epochs": epochs},
            seed=seed,
            overwrite=True,
            on_step=lambda state: advance(
                completed=state.step, total=state.steps, description=f"loss {state.loss:.1f}"
            ),
        )
    network = checkpoint.network

    step(f"sa-deploy export {checkpoint.path} --onnx --out {run}")
    size = (network.config.height, network.config.width)
    parity = export_model(checkpoint, run).parity["parts"]
    note(f"cosine to the network on the worst of {parity.crops} crops: {parity.min_cosine:.7f}")

    with Embedder(model, "onnxruntime") as embedder:
        step(f"sa-deploy embed {model} {video} --detections {boxes} --out {people}")
        embedded = embed(video, embedder, people, detections=boxes)
        note(
            f"{embedded.rows} people in {embedded.counts.frames} frames, "
            f"{embedded.rows_per_s:.0f} a second"
        )
        step(f"sa-deploy evaluate {model} -d synthetic --data-dir {world}")
        embed_network = network_embed(network, "parts")
        reports = {
            "torch network": evaluate_embedder(
                lambda paths: embed_network(
                    np.stack([resize(read_image(path), *size) for path in paths])
                ),
                dataset,
            ),
            f"{model.name} on {embedder.runner.name}": evaluate(embedder, dataset),
        }
    found = list(reports.values())[-1]
    ranking_picture(dataset, found.query, found.gallery, picture, seed=seed)

    files = {"model": model, "embeddings": people, "picture": picture, "world": world}
    if json_output:
        print_json(
            {
                "evaluations": {name: report.as_dict() for name, report in reports.items()},
                "min_cosine": parity.min_cosine,
                "video": {
                    "rows": embedded.rows,
                    "frames": embedded.counts.frames,
                    "rows_per_s": embedded.rows_per_s,
                },
                "files": {name: str(path) for name, path in files.items()},
                "seconds": time.perf_counter() - began,
            }
        )
        return
    print_table(
        "Retrieval on people that training never saw",
        ("model", "mAP %", "rank-1 %", "rank-5 %", "images/s"),
        [_row(name, report) for name, report in reports.items()],
    )
    print_table(
        f"Written in {time.perf_counter() - began:.0f} s",
        ("what", "file"),
        [
            ("the exported network", model),
            (f"{embedded.rows} vectors of the video's people", people),
            ("queries and their matches", picture),
            ("the data set and its videos", world),
        ],
        figures=False,
    )


def step(command: str) -> None:
    """Say which command does the next part."""
    note(f"\n$ {command}")


def _row(name: str, report: RetrievalReport) -> tuple[str, ...]:
    result = report.result
    return (
        name,
        f"{100 * result.mAP:.2f}",
        f"{100 * result.rank(1):.2f}",
        f"{100 * result.rank(5):.2f}",
        f"{report.images_per_second:.0f}",
    )
