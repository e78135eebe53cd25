"""Options of ``sa-deploy embed`` that say how boxes are read and which are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    from sa_runtime.detections.options import BoxOptions

Detections = Annotated[
    list[Path] | None,
    typer.Option(
        "--detections",
        metavar="PATH",
        help="File with the boxes of a video, once for each video in their order; or a folder of "
        "files named as the videos, or one file that names the video of each box.",
    ),
]
DetectionsFormat = Annotated[
    str | None,
    typer.Option(
        "--detections-format",
        metavar="NAME",
        help="Format of the boxes: mot, csv, parquet, coco or ultralytics; told by suffix and "
        "content by default.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="WHAT=NAME,...",
        help="Names of the columns of boxes, such as left=bbox_x,top=bbox_y; by default those that "
        "are usual.",
    ),
]
FirstFrame = Annotated[
    int,
    typer.Option(
        "--first-frame",
        min=0,
        metavar="N",
        help="Number that the files of boxes give the first frame.",
    ),
]
Normalized = Annotated[
    bool,
    typer.Option(
        "--normalized", help="Take boxes as parts of the frame's width and height, from 0 to 1."
    ),
]
CocoImages = Annotated[
    Path | None,
    typer.Option(
        "--coco-images",
        metavar="FILE",
        help="COCO annotations with the images that COCO results refer to; without it their "
        "numbers are those of frames.",
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        metavar="NUMBER",
        help="Leave out boxes of less confidence; none by default.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Use boxes of these classes, by name or number, joined by commas; all by default.",
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--every", min=1, metavar="N", help="Use every Nth frame of a video; all by default."
    ),
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", metavar="NUMBER", help="Use so many frames a second; all by default."),
]
PerTrack = Annotated[
    int | None,
    typer.Option(
        "--per-track",
        min=1,
        metavar="K",
        help="Use the best K boxes of each track, by size, visibility, overlap, shape and "
        "confidence; all by default.",
    ),
]
TrackFile = Annotated[
    str | None,
    typer.Option(
        "--tracks",
        metavar="FILE",
        help="FILE.parquet, .npz or .csv that gets one vector for each track beside those of its "
        "crops: their mean, weighted by quality; without it none.",
    ),
]
MinSize = Annotated[
    str | None,
    typer.Option(
        "--min-size",
        metavar="WIDTHxHEIGHT",
        help="Leave out boxes of less pixels; one number is both; none by default.",
    ),
]
Pad = Annotated[
    float,
    typer.Option(
        "--pad",
        min=0,
        metavar="PART",
        help="Move every side of a box out by this part of its width or height before it is cut.",
    ),
]


def box_options(given: Mapping[str, Any]) -> BoxOptions:
    """The options as the library takes them.

    Args:
        given: the parameters of the command, by name.

    Raises:
        InputError: one that cannot be read, or cannot be.
    """
    from sa_runtime.detections.options import BoxOptions

    columns, classes, min_size = given["columns"], given["classes"], given["min_size"]
    return BoxOptions(
        format=given["detections_format"],
        columns=dict(_pairs(columns)) if columns else {},
        first_frame=given["first_frame"],
        normalized=given["normalized"],
        coco_images=given["coco_images"],
        min_confidence=given["min_confidence"],
        classes=tuple(one.strip() for one in classes.split(",")) if classes else (),
        min_size=_size(min_size) if min_size else (0.0, 0.0),
        every=given["every"],
        fps=given["fps"],
        per_track=given["per_track"],
        pad=given["pad"],
    )


def _pairs(text: str) -> Sequence[tuple[str, str]]:
    pairs = [one.partition("=") for one in text.split(",")]
    if not all(role and name for role, _, name in pairs):
        raise bad_value("columns", text, "expected WHAT=NAME pairs, such as left=bbox_x,top=bbox_y")
    return [(role.strip(), name.strip()) for role, _, name in pairs]


def _size(text: str) -> tuple[float, float]:
    width, _, height = text.lower().partition("x")
    try:
        return float(width), float(height or width)
    except ValueError:
        raise bad_value(
            "min_size", text, "expected a width and a height in pixels, such as 16x32"
        ) from None
