"""Folders of Ultralytics' ``labels/NAME_FRAME.txt``: boxes by their centre, in parts of the frame.

A line is ``class cx cy w h``, with ``save_conf`` then the confidence, then the id where a tracker
gave one. Six fields are a confidence where the last is a part of one, and an id where it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.rows import chunk_of
from sa_runtime.errors import DetectionError, MissingFileError, shown

LABEL_FILE = re.compile(r"(.+)_(\d+)\.txt")
_FIELDS = "class cx cy w h [confidence] [id]"
_CHUNK_FILES = 4096


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
    for start in range(0, len(found), _CHUNK_FILES):
        yield _chunk(found[start : start + _CHUNK_FILES], options)


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


def _chunk(files: list[Path], options: BoxOptions) -> Chunk:
    rows: list[tuple[float, ...]] = []
    places: list[str] = []
    videos: dict[str, int] = {}
    codes: list[int] = []
    for file in files:
        match = LABEL_FILE.fullmatch(file.name)
        if match is None:
            raise DetectionError(
                f"{file}: the name has no number of a frame; expected NAME_FRAME.txt"
            )
        code = videos.setdefault(match[1], len(videos))
        for number, line in enumerate(_text(file).splitlines(), 1):
            if line.strip():
                rows.append((int(match[2]), *_numbers(line, f"{file}:{number}")))
                places.append(f"{file}:{number}")
                codes.append(code)
    table = np.array(rows, np.float64).reshape(-1, 8)
    names = ("frame", "class", "cx", "cy", "width", "height", "confidence", "id")
    columns: dict[str, NDArray[np.float64]] = dict(zip(names, table.T, strict=True))
    values, labels = np.unique(columns.pop("class"), return_inverse=True)
    return chunk_of(
        columns,
        lambda index: places[index],
        first_frame=options.first_frame,
        classes=Labels(labels.reshape(-1), [(f"{value:g}",) for value in values.tolist()]),
        videos=Labels(np.array(codes, np.int64), [(name,) for name in videos]),
    )


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
    if not all(-0.5 <= one <= 1.5 for one in numbers[:4]):
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
