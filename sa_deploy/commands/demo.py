"""``sa-deploy demo``: the whole way, from nothing to embeddings and a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_export.artefact_files import Artefact
    from sa_runtime.datasets.base import ReidDataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.pipeline.result import EmbedResult
    from sa_runtime.retrieval.evaluation import RetrievalReport
    from sa_training.checkpoints import Checkpoint
    from sa_training.network import SANetwork


def demo(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder that everything is written to.")
    ] = Path("out/demo"),
    identities: Annotated[
        int, typer.Option(min=20, metavar="PEOPLE", help="People of the generated world.")
    ] = 200,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="EPOCHS",
            help="Passes of the training over its images; those of the recipe tiny by default.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the generated world and of the training.")
    ] = 1,
    json_output: JsonOutput = False,
) -> None:
    """Draw a world, train, export, embed a video and evaluate.

    Examples:
        sa-deploy demo
        sa-deploy demo --out out/small --identities 40 --epochs 2
    """
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.retrieval.picture import ranking_picture
    from sa_runtime.system.extras import require

    for package in ("torch", "onnxscript", "onnxruntime"):  # before the world is drawn
        require(package, extra="train,export", purpose="the demo")
    began = time.perf_counter()
    world, run = out / "world", out / "run"
    people, picture = out / "people.parquet", out / "matches.png"
    _draw(world, identities, seed)
    dataset = load_dataset("synthetic", world)
    checkpoint = _train(dataset, world, run, epochs, seed)
    artefact = _export(checkpoint, run)
    with Embedder(artefact.path, "onnxruntime") as embedder:
        embedded = _embed(embedder, artefact.path, world / "videos", people)
        step(f"sa-deploy evaluate {artefact.path} -d synthetic --data-dir {world}")
        reports = _evaluations(checkpoint.network, embedder, artefact.path.name, dataset)
    found = list(reports.values())[-1]
    ranking_picture(dataset, found.query, found.gallery, picture, seed=seed)
    result = DemoResult(
        evaluations=reports,
        min_cosine=artefact.parity["parts"].min_cosine,
        video=embedded,
        files={"model": artefact.path, "embeddings": people, "picture": picture, "world": world},
        seconds=time.perf_counter() - began,
    )
    if json_output:
        print_json(result.to_dict())
    else:
        _print(result)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo made.

    Attributes:
        evaluations: figures of the network and of its artefact, by name.
        min_cosine: of the artefact to the network on the worst crop.
        video: what became of the video.
        files: by what they hold.
        seconds: of it all.
    """

    evaluations: dict[str, RetrievalReport]
    min_cosine: float
    video: EmbedResult
    files: dict[str, Path]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "evaluations": {name: report.to_dict() for name, report in self.evaluations.items()},
            "min_cosine": self.min_cosine,
            "video": {
                "rows": self.video.rows,
                "frames": self.video.counts.frames,
                "rows_per_s": self.video.rows_per_s,
            },
            "files": {name: str(path) for name, path in self.files.items()},
            "seconds": self.seconds,
        }


def _draw(world: Path, identities: int, seed: int) -> None:
    from sa_runtime.datasets.synthetic import SyntheticConfig, work, write_synthetic

    step(f"sa-deploy data synth {world} --identities {identities} --seed {seed}")
    config = SyntheticConfig(identities=identities, seed=seed, videos=1)
    with progress("drawing", work(config)) as advance:
        write_synthetic(world, config, force=True, on_progress=advance)


def _train(
    dataset: ReidDataset, world: Path, run: Path, epochs: int | None, seed: int
) -> Checkpoint:
    from sa_training.train import train_model

    step(f"sa-deploy train -d synthetic --data-dir {world} --recipe tiny --seed {seed} --out {run}")
    with progress("training", None, unit="step") as advance:
        return train_model(
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


def _export(checkpoint: Checkpoint, run: Path) -> Artefact:
    from sa_export.export import export_model

    step(f"sa-deploy export {checkpoint.path} --onnx --out {run}")
    artefact = export_model(checkpoint, run)
    parity = artefact.parity["parts"]
    note(f"cosine to the network on the worst of {parity.crops} crops: {parity.min_cosine:.7f}")
    return artefact


def _embed(embedder: Embedder, model: Path, videos: Path, people: Path) -> EmbedResult:
    from sa_runtime.pipeline.embed import embed

    video, boxes = videos / "c1.mp4", videos / "c1.gt.txt"
    step(f"sa-deploy embed {model} {video} --detections {boxes} --out {people}")
    embedded = embed(video, embedder, people, detections=boxes)
    note(
        f"{embedded.rows} people in {embedded.counts.frames} frames, "
        f"{embedded.rows_per_s:.0f} a second"
    )
    return embedded


def _evaluations(
    network: SANetwork, embedder: Embedder, model: str, dataset: ReidDataset
) -> dict[str, RetrievalReport]:
    """The figures of the network, and of the artefact that was made from it."""
    import numpy as np

    from sa_export.parity import crop_embedder
    from sa_runtime.crops import resize
    from sa_runtime.decoding import read_image
    from sa_runtime.retrieval.evaluation import evaluate, evaluate_embedder

    embed_network = crop_embedder(network, "parts")
    size = (network.config.height, network.config.width)
    return {
        "torch network": evaluate_embedder(
            lambda paths: embed_network(
                np.stack([resize(read_image(path), *size) for path in paths])
            ),
            dataset,
        ),
        f"{model} on {embedder.runner.name}": evaluate(embedder, dataset),
    }


def _print(result: DemoResult) -> None:
    print_table(
        "Retrieval on people that training never saw",
        ("model", "mAP %", "rank-1 %", "rank-5 %", "images/s"),
        [_row(name, report) for name, report in result.evaluations.items()],
    )
    said = {
        "model": "the exported network",
        "embeddings": f"{result.video.rows} vectors of the video's people",
        "picture": "queries and their matches",
        "world": "the data set and its videos",
    }
    print_table(
        f"Written in {result.seconds:.0f} s",
        ("what", "file"),
        [(said[name], path) for name, path in result.files.items()],
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
