"""``sa-deploy evaluate``: how well models find labelled people again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import (
    BatchSize,
    Cache,
    Cmc,
    Device,
    JsonOutput,
    Runtime,
    Threads,
    runner_options,
)
from sa_deploy.output import print_json, progress

if TYPE_CHECKING:
    from sa_runtime.datasets.base import ReidDataset

_MODELS = typer.Argument(
    metavar="MODELS",
    help="Artefacts to run, or stored embeddings of the data set (Parquet of `sa-deploy embed`); "
    "the others are compared with the first.",
)
_DATASETS = typer.Option(
    "-d",
    "--dataset",
    metavar="NAME",
    help="Layout of the data set: auto, market, duke, cuhk03, msmt17, folder or synthetic; may be "
    "repeated, or several joined by commas.",
)
_DATA_DIRS = typer.Option(
    "--data-dir",
    metavar="FOLDER",
    help="Folder that holds the data set; one for each -d, in the same order.",
)
_GATES = typer.Option(
    "--gate",
    metavar="LIMIT",
    help="Limit in percent that every model must keep on every data set, such as 'mAP>=70'; else "
    "the exit code is 3. May be repeated.",
)


def evaluate(
    models: Annotated[list[str], _MODELS],
    data_dir: Annotated[list[str], _DATA_DIRS],
    dataset: Annotated[list[str], _DATASETS] = ["auto"],  # noqa: B006  # never changed
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    threads: Threads = None,
    batch_size: BatchSize = 32,
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Re-rank by k-reciprocal neighbours before counting."),
    ] = False,
    expand: Annotated[
        bool,
        typer.Option("--expand", help="Move every query towards its nearest gallery images first."),
    ] = False,
    cmc: Annotated[Cmc, typer.Option(help="Convention by which ranks are counted.")] = "market1501",
    all_cmc: Annotated[
        bool, typer.Option("--all-cmc", help="Count ranks by all three conventions.")
    ] = False,
    gate: Annotated[list[str] | None, _GATES] = None,
    per_query: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parquet file with a row for each query; none by default.",
        ),
    ] = None,
    breakdown: Annotated[
        bool,
        typer.Option(
            "--breakdown",
            help="Print figures by pair of cameras, size and time, and how many right pairs are "
            "accepted at stated rates of wrong ones.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that gets report.html, one file to look at figures, curves and "
            "rankings; none by default.",
        ),
    ] = None,
    report_images: Annotated[
        int,
        typer.Option(metavar="N", min=20, help="Most pictures in the report, of 2 kB each."),
    ] = 4000,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of earlier evaluations, NAME.jsonl, that this one is added to; none by "
            "default.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PNG file that shows some queries with their matches, of one model and data set; "
            "none by default.",
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

    Ranks are those of the cumulative matching curve; mINP is printed beside them, and how far
    each figure would be another with other people. Of several models the differences are called
    real or noise.

    Examples:
        sa-deploy evaluate model.onnx --data-dir Market-1501 --gate 'mAP>=70'
        sa-deploy evaluate a.onnx b.onnx -d synthetic --data-dir world --rerank
    """
    from sa_deploy.commands.evaluate.files import Files
    from sa_deploy.commands.evaluate.tables import (
        print_breakdowns,
        print_comparisons,
        print_reports,
    )
    from sa_runtime.retrieval.evaluations import analyse_all, evaluate_models
    from sa_runtime.retrieval.expansion import Expansion
    from sa_runtime.retrieval.gates import check_gates, parse_gate
    from sa_runtime.retrieval.metrics import CONVENTIONS
    from sa_runtime.retrieval.rerank import Reranking

    gates = [parse_gate(text) for text in gate or ()]
    files = Files(
        picture=picture,
        per_query=per_query,
        report=report,
        most_images=report_images,
        history=history,
    )
    files.check([Path(root) for root in data_dir], models, alone=len(models) == len(dataset) == 1)
    found = evaluate_models(
        models,
        _load(dataset, data_dir),
        runtime=runtime,
        batch_size=batch_size,
        rerank=Reranking() if rerank else None,
        expand=Expansion() if expand else None,
        conventions=CONVENTIONS if all_cmc else (cmc,),
        seed=seed,
        watch=progress,
        **runner_options(cache=cache, device=device, threads=threads),
    )
    if breakdown or report is not None:
        found = analyse_all(found, watch=progress)
    files.write(found, seed=seed)
    if json_output:
        print_json({**found.to_dict(), **files.to_dict()})
    else:
        print_reports(found.reports)
        print_comparisons(found.comparisons)
        if breakdown:
            print_breakdowns(found)
        files.print_history(found)
    check_gates(found.reports, gates)


def _load(names: list[str], roots: list[str]) -> list[ReidDataset]:
    """The data sets; two of one name are told apart by their folders."""
    from sa_runtime.datasets.loading import folders_of, load_dataset

    wanted = [part.strip() for name in names for part in name.split(",")]
    folders = folders_of(roots[0] if len(roots) == 1 else [Path(root) for root in roots], wanted)
    loaded = [load_dataset(name, root) for name, root in zip(wanted, folders, strict=True)]
    called = [images.name for images in loaded]
    return [
        images
        if called.count(images.name) == 1
        else replace(images, name=f"{images.name} {images.root}")
        for images in loaded
    ]
