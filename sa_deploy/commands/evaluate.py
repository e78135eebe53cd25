"""``sa-deploy evaluate``: how well an artefact finds labelled people again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.retrieval.evaluation import RetrievalReport


def evaluate(
    model: Annotated[Path, typer.Argument(help="An artefact of `sa-deploy export`.")],
    data_dir: Annotated[Path, typer.Option(help="Folder of the data set.")],
    dataset: Annotated[
        str, typer.Option("-d", "--dataset", help="Layout of the data set: market, synthetic, ...")
    ] = "market",
    runtime: Annotated[str, typer.Option(help="auto, or the name of a runtime.")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for what a runtime builds: TensorRT engines, compiled models."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Of the runtime: cuda:1, tensorrt (inside ONNX Runtime), GPU (OpenVINO), ..."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Largest batch given to the runtime.")
    ] = 32,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank by k-reciprocal neighbours first.")
    ] = False,
    cmc: Annotated[
        str, typer.Option(help="How CMC counts: market1501, allshots or cuhk03.")
    ] = "market1501",
    all_cmc: Annotated[
        bool, typer.Option("--all-cmc", help="Count CMC in all three ways.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file for queries and their matches.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of cuhk03's draws and the picture's queries.")] = 0,
    json_output: JsonFlag = False,
) -> None:
    """Find a data set's queries in its gallery; print mAP and ranks.

    Ranks are those of the cumulative matching curve; mINP is printed beside them.
    """
    from sa_runtime.datasets.table import load_dataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.retrieval.evaluation import evaluate as evaluate_model
    from sa_runtime.retrieval.metrics import CONVENTIONS, check_conventions
    from sa_runtime.retrieval.picture import ranking_picture, require_png
    from sa_runtime.retrieval.rerank import Reranking

    conventions = CONVENTIONS if all_cmc else check_conventions([cmc])
    if picture is not None:
        require_png(picture)
    reranking = Reranking() if rerank else None
    images = load_dataset(dataset, data_dir)
    options = {} if cache is None else {"cache": str(cache)}
    if device is not None:
        options["device"] = device
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
                **report.as_dict(),
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
