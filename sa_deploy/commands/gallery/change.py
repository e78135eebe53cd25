"""``sa-deploy gallery remove``, ``keep`` and ``compact``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.commands.gallery.indexing import indexing
from sa_deploy.commands.gallery.info import GalleryFolder
from sa_deploy.options import JsonOutput
from sa_deploy.output import print_json


def remove(
    gallery: GalleryFolder,
    person: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Rows of this person; may be repeated."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Rows of this source; may be repeated."),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Rows under this camera; may be repeated."),
    ] = None,
    track: Annotated[
        int | None, typer.Option(metavar="ID", help="Rows of this track; all tracks by default.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Rows from this time on; without it, all."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Rows before this time; without it, all."),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of crops that `sa-deploy embed --crops` wrote; those of the rows are "
            "removed as well, without it no file beside the gallery.",
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Remove rows for which all that is given holds; no file of the gallery holds them afterwards.

    Examples:
        sa-deploy gallery remove gallery --person "Ada Lovelace"
        sa-deploy gallery remove gallery --source c1.mp4 --from 60 --to 120
    """
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.rows import Where, time_of

    where = Where(
        person=tuple(person or ()),
        source=tuple(source or ()),
        camera=tuple(camera or ()),
        track=track,
        start=None if start is None else time_of(start, "start"),
        end=None if end is None else time_of(end, "end"),
    )
    with indexing("remove") as on_index:
        removed = Gallery(gallery, on_index=on_index).remove(where, crops=crops)
    left = Gallery(gallery)
    if json_output:
        remaining = left.count(where)
        print_json({"removed": removed, "rows": len(left), "still_there": remaining})
        return
    typer.echo(f"{removed:,} rows removed, {len(left):,} rows left in {gallery}")


def keep(
    gallery: GalleryFolder,
    keep: Annotated[
        str,
        typer.Argument(
            metavar="DURATION", help="How long rows are kept: 30d, 12h, 2w; or `ever`, for ever."
        ),
    ],
    json_output: JsonOutput = False,
) -> None:
    """Change how long a gallery keeps rows; older ones are removed at once.

    Examples:
        sa-deploy gallery keep gallery 30d
        sa-deploy gallery keep gallery ever
    """
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.rows import duration

    kept = None if keep == "ever" else duration(keep)
    with indexing("forget") as on_index:
        opened = Gallery(gallery, on_index=on_index)
        forgotten = opened.set_keep(kept)
    if json_output:
        print_json({"forgotten": forgotten, "rows": len(opened), "keep": keep})
        return
    typer.echo(f"{forgotten:,} rows forgotten, {len(opened):,} rows left in {gallery}")


def compact(gallery: GalleryFolder, json_output: JsonOutput = False) -> None:
    """Write small files of a gallery as few large ones.

    Examples:
        sa-deploy gallery compact gallery
        sa-deploy gallery compact gallery --json
    """
    from sa_runtime.gallery.gallery import Gallery

    with indexing("compact") as on_index:
        before, after = Gallery(gallery, on_index=on_index).compact()
    if json_output:
        print_json({"segments_before": before, "segments": after})
        return
    typer.echo(f"{before} segments before, {after} now in {gallery}")
