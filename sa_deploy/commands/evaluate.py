"""``sa-deploy evaluate``: how well an artefact finds labelled people again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import (
    BatchSize,
    Cache,
    Cmc,
    DataDir,
    Dataset,
    Device,
    JsonOutput,
    Model,
    Runtime,
    runner_options,
)
from sa_deploy.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.retrieval.evaluation import RetrievalReport


def evaluate(
    model: Model,
    data_dir: DataDir,
    dataset: Dataset = "market",
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    batch_size: BatchSize = 32,
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Re-rank by k-reciprocal neighbours before counting."),
    ] = False,
    cmc: Annotated[Cmc, typer.Option(help="Convention by which ranks are counted.")] = "market1501",
    all_cmc: Annotated[
        bool, typer.Option("--all-cmc", help="Count ranks by all three conventions.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PNG file that shows some queries with their matches; none by default.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of the draws of cuhk03, and of the queries in the picture.",
        ),
    ] = 0,
    json_output: JsonOutput = False,
) -> None:
    """Find a data set's queries in its gallery; print mAP and ranks.

    Ranks are those of the cumulative matching curve; mINP is printed beside them.

    Examples:
        sa-deploy evaluate model.onnx --data-dir Market-1501
        sa-deploy evaluate model.onnx -d synthetic --data-dir world --rerank --all-cmc
    """
    from sa_runtime.datasets.table import load_dataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.retrieval.evaluation import evaluate as evaluate_model
    from sa_runtime.retrieval.metrics import CONVENTIONS
    from sa_runtime.retrieval.picture import check_picture, ranking_picture
    from sa_runtime.retrieval.rerank import Reranking

    conventions = CONVENTIONS if all_cmc else (cmc,)
    if picture is not None:
        check_picture(picture, data_dir)
    reranking = Reranking() if rerank else None
    images = load_dataset(dataset, data_dir)
    options = runner_options(cache=cache, device=device)
    with Embedder(model, runtime, batch_size=batch_size, **options) as embedder:
        on, precision = embedder.runner.name, embedder.contract.precision
        with progress(f"embed on {on}", len(images.query) + len(images.gallery)) as advance:
            report = evaluate_model(
                embedder,
                images,
                rerank=reranking,
                conventions=conventions,
                seed=seed,
                on_progress=advance,
            )
    if picture is not None:
        ranking_picture(images, report.query, report.gallery, picture, rerank=reranking, seed=seed)
        note(f"picture: {picture}")
    if json_output:
        print_json(
            {
                "model": str(model),
                "runtime": on,
                "precision": precision,
                **report.to_dict(),
                "picture": None if picture is None else str(picture),
            }
        )
    else:
        _print(f"{model.name} on {on}", report)


def _print(title: str, report: RetrievalReport) -> None:
    from sa_runtime.retrieval.evaluation import RANKS

    result = report.result
    ranked = "" if report.reranked is None else ", re-ranked"
    print_table(
        f"{report.dataset}: {title}{ranked} (%)",
        ("CMC", "mAP", *(f"rank-{k}" for k in RANKS), "mINP"),
        [
            (
                name,
                _percent(result.mAP),
                *(_percent(result.rank(k, name)) for k in RANKS),
                _percent(result.mINP),
            )
            for name in result.cmc
        ],
    )
    typer.echo(
        f"{result.queries_counted:,} queries ({result.queries_skipped:,} skipped: no match under "
        f"another camera), {result.gallery_images:,} gallery images, "
        f"{report.query.shape[1]:,} dimensions; {report.images_per_second:,.0f} images/s"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
