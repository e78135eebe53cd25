"""``sa-deploy index``: stored embeddings into a gallery that is searched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy.commands.gallery.indexing import told
from sa_deploy.options import JsonOutput
from sa_deploy.output import command_line, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.outputs.base import StoredEmbeddings


def index(
    embeddings: Annotated[
        list[Path],
        typer.Argument(
            metavar="EMBEDDINGS",
            help="Files and folders that `sa-deploy embed` wrote.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Gallery that the vectors are added to; made where it is missing.",
        ),
    ],
    camera: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Camera of all rows; the rows' own by default."),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Person who is on all rows; nobody is named by default."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When the first frame of each source was taken, such as 2026-05-01T08:00; rows "
            "then have a time of day; without it, none.",
        ),
    ] = None,
    known: Annotated[
        Literal["refuse", "replace", "add"],
        typer.Option(help="What becomes of sources that the gallery holds already."),
    ] = "refuse",
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Forget rows that are older, such as 30d, 12h or 2w; a gallery keeps what it was "
            "told before, by default for ever.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"] | None,
        typer.Option(help="Type of the stored numbers of a new gallery, float32 by default."),
    ] = None,
    method: Annotated[
        Literal["exact", "hnsw", "ivfpq"] | None,
        typer.Option(
            help="How a new gallery is searched: every row, by a graph (hnsw) or by codes of a "
            "few bytes (ivfpq), which are faster and miss some; how many is measured and shown. "
            "Exact by default."
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Put stored embeddings into a gallery that can be searched.

    All rows are in the gallery afterwards, or none: a run that is stopped changes nothing.

    Examples:
        sa-deploy index people.parquet --out gallery
        sa-deploy index c1.parquet --out gallery --start 2026-05-01T08:00 --keep 30d
    """
    from sa_runtime.gallery.add import add_to
    from sa_runtime.gallery.rows import RowLabels, duration, time_of_day
    from sa_runtime.outputs.read import each_embeddings
    from sa_runtime.system.files import refuse_inputs, refuse_twice

    refuse_inputs(out, embeddings)
    refuse_twice(embeddings)
    labels = RowLabels(
        camera=camera, person=person, start=None if start is None else time_of_day(start, "start")
    )
    kept = None if keep is None else duration(keep)
    began = time.perf_counter()
    with progress("index", None, unit="row") as advance:
        gallery, added = add_to(
            out,
            _counted(each_embeddings(embeddings), advance),
            labels=labels,
            known=known,
            keep=kept,
            dtype=dtype,
            method=method,
            on_index=told(advance),
        )
    seconds = time.perf_counter() - began
    if json_output:
        print_json({"added": added, "seconds": round(seconds, 3), **gallery.to_dict()})
        return
    print_table(
        f"Gallery {out}",
        ("indexed", ""),
        [
            ("rows added", f"{added:,}"),
            ("rows", f"{len(gallery):,}"),
            ("seconds", f"{seconds:.1f}"),
            ("vectors", f"{gallery.contract.output.dim} x {gallery.dtype}"),
            ("size", f"{gallery.size_bytes / 2**20:.1f} MiB"),
            ("search", _method(gallery)),
            ("feature space", gallery.contract.space),
        ],
    )
    if kept is not None and len(gallery) < added:
        note(f"{added - len(gallery):,} rows are older than they are kept, and are gone already")
    note(f"Search it with: {command_line('search', out, '--vectors', embeddings[0])}")


def _method(gallery: Gallery) -> str:
    from sa_runtime.gallery.approximate import kind_of

    if gallery.method == "exact":
        return "exact"
    if gallery.recall is None:
        least = kind_of(gallery.method).LEAST_ROWS
        return f"exact; {gallery.method} where {least:,} rows or more are added at once"
    return f"{gallery.method}, finds {100 * gallery.recall:.1f} % of the 10 nearest"


def _counted(
    stored: Iterable[StoredEmbeddings], advance: Callable[..., None]
) -> Iterator[StoredEmbeddings]:
    rows = 0
    for part in stored:
        yield part
        rows += len(part.rows)
        advance(completed=rows)
