"""Folders of Ultralytics' ``labels/NAME_FRAME.txt``: boxes by their centre, in parts of the frame.

A line is ``class cx cy w h``, with ``save_conf`` then the confidence, then the id where a tracker
gave one. Six fields are a confidence where the last is a part of one, and an id where it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.rows import chunk_of
from sa_runtime.errors import DetectionError, MissingFileError, shown

LABEL_FILE = re.compile(r"(.+)_(\d+)\.txt")
_FIELDS = "class cx cy w h [confidence] [id]"
_NAMES = ("frame", "class", "cx", "cy", "width", "height", "confidence", "id")
_LEAST, _MOST = -0.5, 1.5
"""Of a number of a box in parts of its frame."""
_CHUNK_FILES, _CHUNK_BOXES = 4096, 2**17

Table = NDArray[np.float64]


def read_labels(path: Path, options: BoxOptions) -> Iterator[Chunk]:
    """Read a folder of label files, or one of them.

    Args:
        path: ``labels``, the folder it is in, or one file.
        options: how they are read.

    Raises:
        MissingFileError: there is no such folder.
        DetectionError: a folder without label files, or a line that is none, named.
    """
    folder = path / "labels" if (path / "labels").is_dir() else path
    found = list(label_files(folder)) if folder.is_dir() else [folder]
    if not folder.exists():
        raise MissingFileError(f"{path}: no such file or folder", path=path)
    if not found:
        raise DetectionError(
            f"{path}: no label files in it; expected NAME_FRAME.txt, as Ultralytics' save_txt "
            "writes them"
        )
    some, boxes = list[_Labels](), 0
    for file in found:
        some.append(_labels(file))
        boxes += len(some[-1].table)
        if boxes >= _CHUNK_BOXES or len(some) == _CHUNK_FILES:
            yield _chunk(some, options)
            some, boxes = [], 0
    if some:
        yield _chunk(some, options)


def is_label_folder(folder: Path) -> bool:
    """Whether a folder, or ``labels`` in it, has label files of frames."""
    inner = folder / "labels" if (folder / "labels").is_dir() else folder
    first = next(label_files(inner), None) if inner.is_dir() else None
    if first is None:
        return False
    lines = _text(first).splitlines()
    return not lines or is_label_line(lines[0].strip())


def label_files(folder: Path) -> Iterator[Path]:
    """The label files of a folder, by video and frame."""
    named = [(LABEL_FILE.fullmatch(file.name), file) for file in folder.iterdir()]
    kept = [(found[1], int(found[2]), file) for found, file in named if found]
    return (file for _, _, file in sorted(kept))


def is_label_line(line: str) -> bool:
    """Whether a line is of a label file: a class, and a box within the frame.

    >>> is_label_line("0 0.5 0.5 0.1 0.2"), is_label_line("1 3 498.5 203.5 66 141")
    (True, False)
    """
    try:
        label, *numbers = map(float, line.split(" "))
    except ValueError:
        return False
    box = numbers[:4]
    return 4 <= len(numbers) <= 6 and label.is_integer() and all(0 <= one <= 1 for one in box)


class _Labels(NamedTuple):
    """The lines of a file: its video and frame, and (N, 8) numbers of :data:`_NAMES`."""

    path: Path
    video: str
    table: Table


def _labels(file: Path) -> _Labels:
    match = LABEL_FILE.fullmatch(file.name)
    if match is None:
        raise DetectionError(f"{file}: the name has no number of a frame; expected NAME_FRAME.txt")
    text = _text(file)
    rows = _plain_rows(text)
    if rows is None:
        numbered = enumerate(text.splitlines(), 1)
        parsed = [_numbers(line, f"{file}:{number}") for number, line in numbered if line.strip()]
        rows = np.array(parsed, np.float64).reshape(-1, 7)
    frames = np.full((len(rows), 1), int(match[2]), np.float64)
    return _Labels(file, match[1], np.hstack([frames, rows]))


def _chunk(some: Sequence[_Labels], options: BoxOptions) -> Chunk:
    columns = dict(zip(_NAMES, np.concatenate([one.table for one in some]).T, strict=True))
    values, labels = np.unique(columns.pop("class"), return_inverse=True)
    counts = [len(one.table) for one in some]
    starts = np.cumsum([0, *counts])
    videos = dict.fromkeys(one.video for one in some)
    places = {video: place for place, video in enumerate(videos)}

    def where(index: int) -> str:
        place = int(np.searchsorted(starts, index, side="right")) - 1
        return f"{some[place].path}: box {index - starts[place] + 1}"

    return chunk_of(
        columns,
        where,
        first_frame=options.first_frame,
        classes=Labels(labels.reshape(-1), [(f"{value:g}",) for value in values.tolist()]),
        videos=Labels(
            np.repeat(np.array([places[one.video] for one in some], np.int64), counts),
            [(name,) for name in videos],
        ),
    )


def _plain_rows(text: str) -> Table | None:
    """(N, 7) of lines of one length whose fields single blanks part; ``None`` of all others."""
    lines = text.splitlines()
    width = lines[0].count(" ") + 1 if lines else 0
    fields = text.split()
    if not 5 <= width <= 7 or len(fields) != width * len(lines):
        return None
    if any(line.count(" ") != width - 1 for line in lines):
        return None
    try:
        given = np.array(fields, np.float64).reshape(-1, width)
    except ValueError:
        return None
    if not ((given[:, 1:5] >= _LEAST) & (given[:, 1:5] <= _MOST)).all():
        return None
    rows = np.full((len(given), 7), np.nan)
    rows[:, :width] = given
    if width == 6:
        plain = np.array(["." not in field for field in fields[5::6]], np.bool_)
        is_id = plain | (given[:, 5] > 1)
        rows[:, 5] = np.where(is_id, np.nan, given[:, 5])
        rows[:, 6] = np.where(is_id, given[:, 5], np.nan)
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise DetectionError(f"{file}: cannot be read ({exc})", path=file) from exc


def _numbers(line: str, where: str) -> tuple[float, ...]:
    fields = line.split()
    if not 5 <= len(fields) <= 7:
        raise DetectionError(f"{where}: {len(fields)} fields in {shown(line)}, expected {_FIELDS}")
    try:
        label, *numbers = map(float, fields)
    except ValueError as exc:
        raise DetectionError(
            f"{where}: {shown(line)} does not hold numbers, expected {_FIELDS}"
        ) from exc
    if not all(_LEAST <= one <= _MOST for one in numbers[:4]):
        raise DetectionError(
            f"{where}: {shown(line)} is no box in parts of its frame, expected {_FIELDS}"
        )
    confidence = track = np.nan
    if len(numbers) == 6:
        confidence, track = numbers[4:]
    elif len(numbers) == 5:
        whole = numbers[4] > 1 or "." not in fields[5]
        confidence, track = (np.nan, numbers[4]) if whole else (numbers[4], np.nan)
    return (label, *numbers[:4], confidence, track)
