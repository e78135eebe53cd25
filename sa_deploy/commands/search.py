"""``sa-deploy search``: who in a gallery looks like a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sa_deploy.options import (
    BatchSize,
    Cache,
    Device,
    JsonOutput,
    Runtime,
    Threads,
    runner_options,
)
from sa_deploy.output import note, print_json, print_table

if TYPE_CHECKING:
    from sa_runtime.gallery.databases import DatabaseGallery
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.queries import Query

_GALLERY = typer.Argument(
    metavar="GALLERY",
    help="Folder that `sa-deploy index` made, or a database that `sa-deploy embed` wrote: "
    "NAME.lancedb, NAME.qdrant.",
)
_SHOWN = 20
"""Queries that are printed as tables; all of them with ``--json``."""


def search(
    gallery: Annotated[Path, _GALLERY],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Image of one person to search for; may be repeated; needs --model.",
        ),
    ] = None,
    track: Annotated[
        int | None,
        typer.Option(
            metavar="ID",
            help="Track of the gallery to search for; without it, images or vectors are.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Source of the track; by default the one source that has it."
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Stored embeddings to search for, each by itself; none by default."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Artefact that embeds the images, as it did the gallery; no default.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Most results of a query.")] = 10,
    by: Annotated[
        Literal["track", "row"],
        typer.Option(help="What takes one place: a track, by its nearest row, or each row."),
    ] = "track",
    camera: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Search under this camera only; may be repeated."),
    ] = None,
    in_source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Search in this source only; may be repeated."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Search from this time on: 2026-05-01T12:00, or seconds from the beginning of a "
            "source; without it, all times.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TIME", help="Search before this time; without it, all times."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PNG file that shows the first queries with the people found; none by default.",
        ),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of crops that `embed --crops` wrote, for the picture; by default people "
            "are cut from their images and videos.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every row of a gallery with an index, too.")
    ] = False,
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    threads: Threads = None,
    batch_size: BatchSize = 32,
    json_output: JsonOutput = False,
) -> None:
    """Find who in a gallery looks like an image, a track or vectors.

    Every row is compared, none is missed, unless the gallery was made with an index.
    A track does not find itself.

    Examples:
        sa-deploy search gallery --image query.jpg --model model.onnx
        sa-deploy search gallery --track 17 --source c1.mp4 --camera c2
    """
    from sa_runtime.errors import InputError
    from sa_runtime.gallery.contact_sheet import check_sheet, contact_sheet
    from sa_runtime.gallery.databases import DatabaseGallery, is_database
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.rows import Where, time_of

    opened = DatabaseGallery(gallery) if is_database(gallery) else Gallery(gallery)
    if picture is not None:
        check_sheet(picture, gallery, crop_folder=crops)
    elif crops is not None:
        raise InputError(f"--crops {crops}: for the pictures of --picture FILE.png; pass it too")
    opened.forget_if_possible()
    where = Where(
        camera=tuple(camera or ()),
        source=tuple(in_source or ()),
        start=None if start is None else time_of(start, "start"),
        end=None if end is None else time_of(end, "end"),
    )
    options = runner_options(cache=cache, device=device, threads=threads)
    runner = {"runtime": runtime, "batch_size": batch_size, **options}
    _check_sources(opened, where.source)
    query = _query(opened, image or [], track, source, vectors, model, runner)
    found = opened.search(query, top, where=where, leave_out=query.leave_out, by=by, exact=exact)
    results = [
        {
            "query": name,
            "from": _plain(query.rows[number]),
            "verdict": found.verdict(number, camera=query.rows[number].get("camera")),
            "found": [
                _plain(row) for row in found.rows(number, camera=query.rows[number].get("camera"))
            ],
        }
        for number, name in enumerate(query.names)
    ]
    if picture is not None:
        missing = contact_sheet(results, picture, crop_folder=crops)
        gone = f"; {missing} pictures are not there any more" if missing else ""
        note(f"picture: {picture}{gone}")
    if json_output:
        said = {"gallery": str(gallery), "rows": len(opened), "by": by}
        recall = None if exact else opened.recall
        print_json({**said, "recall": recall, "results": results})
    else:
        _print(opened, results)


def _check_sources(gallery: Gallery | DatabaseGallery, names: tuple[str, ...]) -> None:
    """As the search itself does, with the name that the option has here."""
    from sa_runtime.errors import InputError
    from sa_runtime.gallery.rows import Where

    for name in names:
        try:
            gallery.check_names(Where(source=(name,)))
        except InputError as exc:
            said = str(exc).replace(f"source={name!r}", f"in_source={name!r}", 1)
            raise InputError(said, parameter="in_source", value=name) from exc


def _query(
    gallery: Gallery | DatabaseGallery,
    images: list[Path],
    track: int | None,
    source: str | None,
    vectors: Path | None,
    model: Path | None,
    runner: dict[str, Any],
) -> Query:
    """The one kind of query that was given."""
    from sa_runtime.errors import InputError
    from sa_runtime.gallery.queries import image_query, stored_query, track_query

    if (bool(images), track is not None, vectors is not None).count(True) != 1:
        raise InputError(
            "what is searched for: expected --image FILE with --model, --track ID, or --vectors "
            "FILE, one of them"
        )
    if source is not None and track is None:
        raise InputError(
            f"--source {source}: names where a --track is; to search in one source only, pass "
            "--in-source"
        )
    if track is not None:
        return track_query(gallery, track, source)
    if vectors is not None:
        return stored_query(vectors)
    if model is None:
        raise InputError("--image: needs the gallery's model as well; pass --model model.onnx")
    from sa_runtime.embedder import Embedder

    with Embedder(model, **runner) as embedder:
        return image_query(images, embedder, gallery)


def _print(gallery: Gallery | DatabaseGallery, results: list[dict[str, Any]]) -> None:
    for result in results[:_SHOWN]:
        rows = result["found"]
        if not rows:
            typer.echo(f"{result['query']}: nothing found, since no row was searched")
            continue
        columns = ("verdict", "source", "track_id", "frame", "camera", "person", "time")
        shown = [name for name in columns if any(row[name] is not None for row in rows)]
        print_table(
            _title(gallery, result),
            ("rank", "distance", *(name.removesuffix("_id") for name in shown)),
            [
                (row["rank"], f"{row['distance']:.4f}", *(_cell(name, row[name]) for name in shown))
                for row in rows
            ],
        )
    if len(results) > _SHOWN:
        note(f"{len(results) - _SHOWN} more queries; --json prints all of them")


def _title(gallery: Gallery | DatabaseGallery, result: dict[str, Any]) -> str:
    title = f"{result['query']}, in {len(gallery):,} rows"
    made = gallery.calibration
    if made is None:
        return title
    return f"{title}: {result['verdict']} (at {made.false_accepts:g} false matches a comparison)"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its times as texts."""
    times = {name: row[name] for name in ("time", "added") if row.get(name) is not None}
    return row | {name: value.isoformat() for name, value in times.items()}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return _short_time(value) if name == "time" else str(value)


def _short_time(text: str) -> str:
    """A time as `--from` takes it, without zeros at its end.

    >>> _short_time("2026-05-01T08:00:00.120000+00:00"), _short_time("2026-05-01T08:00:00+00:00")
    ('2026-05-01T08:00:00.12Z', '2026-05-01T08:00:00Z')
    """
    whole, _, fraction = text.removesuffix("+00:00").partition(".")
    return ".".join(filter(None, (whole, fraction.rstrip("0")))) + "Z"
