"""A contact sheet: queries with the people found, cut anew from what they were seen in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sa_runtime import crops
from sa_runtime.arrays import Bgr, Image
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError
from sa_runtime.gallery.crops import crop_path, require_crops
from sa_runtime.image_files import IMAGE_SUFFIXES
from sa_runtime.retrieval.sheet import GREY, INK, Sheet, write_png
from sa_runtime.sources.reader import VideoReader
from sa_runtime.system.files import refuse_inputs

MOST_QUERIES, MOST_FOUND = 8, 10
_CROP = (176, 88)
_GAP, _QUERY_GAP, _MARGIN, _HEAD, _CAPTION = 14, 34, 28, 60, 44
_EMPTY: Bgr = (232, 228, 224)
_COLOURS: dict[str | None, Bgr] = {"match": (115, 158, 0), "perhaps": (0, 159, 230)}
# Told apart by colour-blind people (Okabe and Ito); the caption says it again.


def check_sheet(out: Path, gallery: Path, *, crop_folder: Path | None = None) -> None:
    """Refuse a target that is no PNG file, or lies in the gallery, and crops that are not there.

    Raises:
        InputError: it is, or they are not.
    """
    if crop_folder is not None:
        require_crops(crop_folder)
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: a picture is written as PNG; expected a name that ends in .png")
    refuse_inputs(out, [gallery], parameter="picture")


def contact_sheet(
    results: Sequence[Mapping[str, Any]], out: Path, *, crop_folder: Path | None = None
) -> int:
    """Draw the first queries and what was found for them.

    A picture comes from the folder of crops where the row names one that is there, else from its
    image or video, which is decoded once.

    Args:
        results: for each query ``query`` (its name), ``from`` (its row) and ``found`` (rows of
            :meth:`sa_runtime.gallery.found.Found.rows`).
        out: PNG file.
        crop_folder: that ``sa-deploy embed --crops`` wrote.

    Returns:
        Pictures that could not be had, since their source is not there any more; they stay grey.

    Raises:
        InputError: the file cannot be written.
    """
    shown = results[:MOST_QUERIES]
    rows = [[result["from"], *result["found"][:MOST_FOUND]] for result in shown]
    flat = [row for line in rows for row in line]
    images = _pictures(flat, crop_folder)
    height, width = _CROP
    columns = max((len(line) for line in rows), default=1)
    sheet = Sheet(
        _HEAD + len(rows) * (height + _CAPTION) + _MARGIN,
        2 * _MARGIN + columns * (width + _GAP) + _QUERY_GAP,
    )
    sheet.text("Who was found, nearest first", _MARGIN, 36, height=14, colour=INK)
    number = 0
    for line, row in enumerate(rows):
        y = _HEAD + line * (height + _CAPTION)
        for column, place in enumerate(row):
            x = _MARGIN + column * (width + _GAP) + (_QUERY_GAP if column else 0)
            image = images[number]
            number += 1
            verdict = place.get("verdict")
            if verdict in _COLOURS:
                sheet.fill(_COLOURS[verdict], x=x - 3, y=y - 3, height=height + 6, width=width + 6)
            if image is None:
                sheet.fill(_EMPTY, x=x, y=y, height=height, width=width)
            else:
                sheet.image(crops.resize(image, height, width), x, y)
            first, second = _captions(place, query=not column)
            sheet.text(first, x, y + height + 16, height=7, colour=INK, limit=width)
            sheet.text(second, x, y + height + 30, height=6, colour=GREY, limit=width)
    write_png(sheet.finish(), out)
    return sum(image is None for image in images)


def _captions(row: Mapping[str, Any], *, query: bool) -> tuple[str, str]:
    name = Path(str(row.get("source", ""))).name
    track = row.get("track_id")
    where = name if track is None else f"{name}, track {track}"
    if query:
        return "query", where
    verdict = row.get("verdict")
    return f"{row['distance']:.3f}" + (f" {verdict}" if verdict else ""), where


def _pictures(rows: Sequence[Mapping[str, Any]], crop_folder: Path | None) -> list[Image | None]:
    """The person of each row."""
    found: list[Image | None] = [None] * len(rows)
    videos: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        found[index] = _stored(row, crop_folder)
        if found[index] is None and row.get("frame") is not None:
            videos[str(row["source"])][int(row["frame"])].append(index)
        elif found[index] is None:
            found[index] = _of_image(row)
    for source, frames in videos.items():
        try:
            with VideoReader(source) as video:
                for frame in video.frames(sorted(frames)):
                    for index in frames[frame.number]:
                        found[index] = _cut(frame.image, rows[index])
        except (InputError, OSError):
            continue  # its pictures stay empty, and are counted
    return found


def _stored(row: Mapping[str, Any], folder: Path | None) -> Image | None:
    path = None if folder is None or not row.get("crop") else crop_path(folder, row["crop"])
    if path is None or not path.is_file():
        return None
    return _read(path)


def _of_image(row: Mapping[str, Any]) -> Image | None:
    path = Path(str(row.get("source", "")))
    if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
        return None
    image = _read(path)
    return None if image is None else _cut(image, row)


def _read(path: Path) -> Image | None:
    try:
        return read_image(path)
    except InputError:
        return None


def _cut(image: Image, row: Mapping[str, Any]) -> Image | None:
    if row.get("width") is None:
        return image
    left, top = row["left"], row["top"]
    box = [[left, top, left + row["width"], top + row["height"]]]
    clipped, valid = crops.clip_boxes(box, *image.shape[:2])
    if not valid[0]:
        return None
    x0, y0, x1, y1 = clipped[0].tolist()
    # A copy, so that the whole frame does not stay in memory with it.
    return image[y0:y1, x0:x1].copy()
