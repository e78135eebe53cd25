"""``sa-deploy calibrate``: from which distance on somebody is nobody."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.options import (
    BatchSize,
    Cache,
    Dataset,
    Device,
    JsonOutput,
    Runtime,
    Threads,
    runner_options,
)
from sa_deploy.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.gallery.calibration import Calibration, Stated
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.outputs.base import StoredEmbeddings


def calibrate(
    gallery: Annotated[
        Path, typer.Argument(metavar="GALLERY", help="Gallery that keeps the thresholds.")
    ],
    marked: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file with the columns source,track_id,person: who is who in the gallery; "
            "without it, a data set is used.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Artefact that embeds a data set, or stored embeddings of it (Parquet of "
            "`sa-deploy embed`); no default.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="FOLDER", help="Folder of the data set; without it, --marked."
        ),
    ] = None,
    dataset: Dataset = "auto",
    false_accepts: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the pairs of two people that may be called a match."
        ),
    ] = 1e-3,
    misses: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the pairs of one person that may be called nobody."
        ),
    ] = 0.05,
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    threads: Threads = None,
    batch_size: BatchSize = 32,
    json_output: JsonOutput = False,
) -> None:
    """Set thresholds from labelled people, at a stated rate of error.

    After it, `search` says match, perhaps or nobody.

    Examples:
        sa-deploy calibrate gallery --model model.onnx --data-dir Market-1501
        sa-deploy calibrate gallery --model market.parquet --data-dir Market-1501
    """
    from sa_runtime.errors import InputError
    from sa_runtime.gallery.calibration import Stated
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.marks import calibrate_marked, read_marks

    opened = Gallery(gallery)
    stated = Stated(false_accepts=false_accepts, misses=misses)
    if marked is not None:
        if model is not None or data_dir is not None:
            raise InputError(f"--marked {marked}: expected it, or a --model with its --data-dir")
        made = calibrate_marked(opened, read_marks(marked), origin=str(marked), stated=stated)
    elif model is None or data_dir is None:
        raise InputError("expected --marked FILE, or --model MODEL with --data-dir FOLDER")
    else:
        options = {
            "runtime": runtime,
            "batch_size": batch_size,
            **runner_options(cache=cache, device=device, threads=threads),
        }
        made = _of_dataset(opened, model, dataset, data_dir, options, stated)
    opened.set_calibration(made)
    if json_output:
        print_json({"gallery": str(gallery), **made.to_dict()})
    else:
        _print(opened, made)


def _of_dataset(
    gallery: Gallery,
    model: Path,
    dataset: str,
    data_dir: Path,
    options: dict[str, Any],
    stated: Stated,
) -> Calibration:
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.embedder import Embedder
    from sa_runtime.gallery.labelled import calibrate_images
    from sa_runtime.outputs.read import read_embeddings
    from sa_runtime.retrieval.stored import is_stored

    images = load_dataset(dataset, data_dir)
    origin = f"{images.name} in {data_dir}"
    total = len(images.query) + len(images.gallery)
    with ExitStack() as stack:
        made_by: Embedder | StoredEmbeddings
        if is_stored(model):
            made_by, on = read_embeddings(model), "stored vectors"
        else:
            made_by = embedder = stack.enter_context(Embedder(model, **options))
            on = embedder.runner.name
        advance = stack.enter_context(progress(f"embed on {on}", total))
        return calibrate_images(
            gallery,
            made_by,
            images,
            name=str(model),
            origin=origin,
            stated=stated,
            on_progress=advance,
        )


def _print(gallery: Gallery, made: Calibration) -> None:
    from sa_runtime.gallery.calibration import open_set_rows

    accepted, found = made.false_accept_rate, made.true_accept_rate
    print_table(
        f"Thresholds of {gallery.path}, from {made.origin}",
        ("verdict", "distance", "stands for"),
        [
            (
                "match",
                f"below {made.match_below:.4f}",
                f"{_percent(accepted.value)} of the pairs of two people "
                f"({_percent(accepted.low)} to {_percent(accepted.high)}), "
                f"{_percent(found.value)} of the pairs of one "
                f"({_percent(found.low)} to {_percent(found.high)})",
            ),
            ("perhaps", f"below {made.nobody_from:.4f}", ""),
            (
                "nobody",
                f"{made.nobody_from:.4f} and more",
                f"at most {_percent(made.misses)} of the pairs of one person",
            ),
        ],
        figures=False,
    )
    print_table(
        "At stated rates",
        ("false positives", "pairs found (TPR)", "people found (DIR)"),
        [
            (_percent(row["rate"]), _percent(row["tpr"]), _percent(row["dir"]))
            for row in open_set_rows(made.open_set)
        ],
    )
    typer.echo(
        f"{made.genuine_pairs:,} pairs of one person, {made.impostor_pairs:,} of two, "
        f"{made.persons:,} people; {len(made.camera_pairs)} pairs of cameras have thresholds of "
        "their own"
    )
    note(
        f"A search in {len(gallery):,} rows is expected to match at most "
        f"{made.false_accepts * len(gallery):.2g} of them by mistake"
    )


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.3g} %"
