"""``sa-deploy gallery info``: what a gallery holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import print_json, print_table

_SHOWN = 12
GalleryFolder = Annotated[
    Path, typer.Argument(metavar="GALLERY", help="Folder that `sa-deploy index` made.")
]


def info(gallery: GalleryFolder, json_output: JsonOutput = False) -> None:
    """Show what a gallery holds, since when, and what was removed from it.

    Examples:
        sa-deploy gallery info gallery
        sa-deploy gallery info gallery --json
    """
    from sa_runtime.gallery.gallery import Gallery

    opened = Gallery(gallery)
    if json_output:
        print_json(opened.to_dict())
        return
    said = opened.to_dict()
    rows: list[tuple[str, object]] = [
        ("rows", f"{said['rows']:,}"),
        ("segments", said["segments"]),
        ("size", f"{said['size_bytes'] / 2**20:.1f} MiB"),
        ("vectors", f"{said['dim']} x {said['dtype']}"),
        ("feature space", said["space"]),
        ("search", said["method"]),
        (
            "of the 10 nearest found",
            "all" if opened.recall is None else f"{100 * opened.recall:.1f} %",
        ),
        ("keeps", "for ever" if opened.keep is None else str(opened.keep)),
        ("calibrated", "no" if opened.calibration is None else opened.calibration.origin),
        ("oldest row", said["oldest"] or "-"),
        *((what, _names(said[what])) for what in ("sources", "cameras", "persons")),
        *(
            (f"{note['why']} {note['when']}", f"{note['rows']:,} rows")
            for note in said["removals"][-_SHOWN:]
        ),
    ]
    print_table(f"Gallery {gallery}", ("holds", ""), rows, figures=False)


def _names(rows_of: dict[str, Any]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(rows_of.items())[:_SHOWN]]
    more = len(rows_of) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])]) or "-"
