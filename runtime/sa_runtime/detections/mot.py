"""Detection files in MOTChallenge's text format, as it is met.

One box a line, ``frame,id,left,top,width,height[,conf[,...]]``; frames count from 1 and lines may
come in any order. Nine fields are those of a ground truth of 2016 and later: the eighth is the
class, the ninth how much of a person is visible. Fields stand between semicolons, commas, tabs or
blanks, whichever a line has first in this order; between all but blanks a field may be empty (no
id, confidence 1). A comma may be the decimal sign where semicolons, tabs or blanks separate.

A first line of names says which column is which, and whether boxes are given by their size or by
their right and lower edges. Lines may then end early, as in no other table.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.detections.names import layout_of, looks_like_names
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.rows import LARGEST, UNTRACKED, chunk_of
from sa_runtime.errors import DetectionError, MissingFileError, shown

FORMAT = "frame,id,left,top,width,height[,conf,...]"
_MOST_FIELDS = 10
"""Of MOTChallenge: three world coordinates follow the confidence."""
_GROUND_TRUTH_FIELDS = 9
_READ_CHARACTERS = 2**24

_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.I | re.A
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:e[+-]?\d+)?", re.I | re.A)
_NOT_PLAIN = re.compile(r"[^0-9+\-.e, ]|, *(?:,|$)|^ *,", re.I)
"""A sign that needs a closer look, or an empty field."""

Table = NDArray[np.float64]
"""(N, 8): frame, id, left, top, width, height, confidence, class."""


class _Columns(NamedTuple):
    """Where the numbers stand in a line; -1 for one that no line holds."""

    frame: int = 0
    id: int = 1
    left: int = 2
    top: int = 3
    third: int = 4
    fourth: int = 5
    confidence: int = 6
    label: int = -1
    names: tuple[str, ...] = ("frame", "id", "left", "top", "width", "height", "confidence")

    @property
    def places(self) -> tuple[int, ...]:
        """Where the eight stand."""
        return (*self[:7], self.label)

    @property
    def least(self) -> int:
        """Fields that a line must have."""
        return max(self.frame, self.left, self.top, self.third, self.fourth) + 1


_UNNAMED = _Columns()
_DEFAULTS = (np.nan, -1, np.nan, np.nan, np.nan, np.nan, 1, np.nan)
_PEDESTRIAN = ("1", "pedestrian", "person")
"""What MOTChallenge's first class is called."""


def read_mot(path: Path, options: BoxOptions) -> Iterator[Chunk]:
    """Read a MOTChallenge text file.

    Args:
        path: the text file; an empty one holds no boxes.
        options: how it is read.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    columns: _Columns | None = None
    headed, number = False, 0
    for lines in _blocks(path):
        begin = 0
        if not headed and any(line.strip() for line in lines):
            columns, begin = _header(lines, path, options)
            headed = True
        table = _plain_table(lines[begin:], columns, options.first_frame)
        if table is None:
            parsed = [
                _parse(line, f"{path}:{at}", columns or _UNNAMED, options.first_frame)
                for at, line in enumerate(lines[begin:], number + begin + 1)
                if line.strip()
            ]
            table = np.array(parsed, np.float64).reshape(-1, 8)
        number += len(lines)
        yield _chunk(table, columns, path, options)


def _chunk(table: Table, columns: _Columns | None, path: Path, options: BoxOptions) -> Chunk:
    names = (columns or _UNNAMED).names
    values, codes = np.unique(table[:, 7], return_inverse=True)
    classes = None
    if len(values) and not np.isnan(values).any():
        labels: list[tuple[str, ...]] = [(f"{value:g}",) for value in values.tolist()]
        if columns is None:
            labels = [_PEDESTRIAN if label == ("1",) else label for label in labels]
        classes = Labels(codes.reshape(-1), labels)
    return chunk_of(
        dict(zip(names, table.T, strict=False)),
        lambda index: f"{path}",
        first_frame=options.first_frame,
        classes=classes,
    )


def _blocks(path: Path) -> Iterator[list[str]]:
    """The lines of a file, some at a time."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while text := file.read(_READ_CHARACTERS):
                text += file.readline()
                yield text.removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else DetectionError
        raise kind(
            f"{path}: cannot be read ({reason}); expected a text file of lines {FORMAT}", path=path
        ) from exc


def _header(lines: Sequence[str], path: Path, options: BoxOptions) -> tuple[_Columns | None, int]:
    """The columns by the first line that is not blank, if it has names, and where boxes begin."""
    begin = next(index for index, line in enumerate(lines) if line.strip())
    line = lines[begin].strip("# ")
    separator = next((sign for sign in ";,\t" if sign in line), None)
    names = [name.strip("\"' ") for name in line.split(separator)]
    if not looks_like_names(names):
        return None, begin
    layout = layout_of(names, options.columns)
    if isinstance(layout, str):
        raise DetectionError(unfit_names(f"{path}:{begin + 1}", lines[begin], layout))
    if layout.video >= 0:
        raise DetectionError(
            f"{path}:{begin + 1}: the column {names[layout.video]!r} names videos; separate the "
            "columns by commas, and read it with `format='csv'`"
        )
    return _Columns(
        *layout[:7],
        label=layout.label,
        names=(
            *("frame", "id"),
            *(("cx", "cy") if layout.centred else ("left", "top")),
            *layout.ends,
            "confidence",
        ),
    ), begin + 1


def unfit_names(where: str, line: str, lacking: str) -> str:
    """The message for a line of names that does not say what a box is."""
    return (
        f"{where}: a line of names, {shown(line)}, without {lacking}; expected names as "
        "frame,id,left,top,width,height,conf or frame,id,x1,y1,x2,y2,conf, no line of names, or "
        "`columns` that say which is which"
    )


def _plain_table(lines: Sequence[str], columns: _Columns | None, first_frame: int) -> Table | None:
    """The numbers of a file as most are: separated by commas or by blanks, no field empty.

    ``None`` for any other file, a wrong one included: :func:`_parse` reads it, and finds the line.
    """
    kept = [line for line in lines if line and not line.isspace()]
    text = ",".join(kept)
    if not kept or _NOT_PLAIN.search(text):
        return None
    separator = "," if "," in kept[0] else None
    size = len(kept[0].split(separator))
    if separator is None:
        text = " ".join(kept)
        alike = all(len(line.split()) == size for line in kept)
    else:
        commas = size - 1
        alike = all(line.count(",") == commas for line in kept)
    if columns is None:
        truth = size == _GROUND_TRUTH_FIELDS
        columns = _Columns(confidence=6 if size > 6 else -1, label=7 if truth else -1)
        alike &= 6 <= size <= _MOST_FIELDS
    if not alike or size <= max(columns.places):
        return None
    with warnings.catch_warnings():
        # Where it meets no number, older NumPy stops with a warning, newer raises.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, sep=separator or " ")
        except (ValueError, DeprecationWarning):
            return None
    if len(values) != len(kept) * size:
        return None
    table = np.empty((len(kept), 8))
    for index, (column, default) in enumerate(zip(columns.places, _DEFAULTS, strict=True)):
        table[:, index] = values[column::size] if column >= 0 else default
    frames, ids = table[:, 0], table[:, 1]
    right = (frames >= first_frame) & (frames < LARGEST) & (frames == np.floor(frames))
    right &= (ids >= -1) & (ids < LARGEST) & (ids == np.floor(ids)) & np.isfinite(table[:, 6])
    return table if right.all() else None


def _parse(line: str, where: str, columns: _Columns, first_frame: int) -> list[float]:
    """The row of the table of one line; its right and lower edge where those are given."""
    fields = _fields(line)
    if len(fields) < columns.least:
        raise DetectionError(f"{where}: {len(fields)} fields in {shown(line)}, expected {FORMAT}")
    if len(fields) > _MOST_FIELDS and "." not in line and columns is _UNNAMED:
        raise DetectionError(
            f"{where}: {len(fields)} fields in {shown(line)}, expected at most {_MOST_FIELDS}; if "
            "its commas are decimal signs, separate the fields by semicolons"
        )
    if columns is _UNNAMED and len(fields) == _GROUND_TRUTH_FIELDS:
        columns = columns._replace(label=7)
    texts = [fields[column] if 0 <= column < len(fields) else "" for column in columns.places]
    texts[1], texts[6], texts[7] = texts[1] or "-1", texts[6] or "1", texts[7] or "nan"
    for name, text in zip((*columns.names, "class"), texts, strict=True):
        if not _NUMBER.fullmatch(text):
            raise DetectionError(
                f"{where}: {shown(line)} does not hold numbers ({shown(text)} as {name}), "
                f"expected {FORMAT}"
            )
    row = [float(text) for text in texts]
    _check(row, texts, where, first_frame)
    return row


def _fields(line: str) -> list[str]:
    """The fields of a line, without blanks around them; decimal commas become points."""
    for separator in ";,\t":
        if separator in line:
            fields = [field.strip(" \t") for field in line.split(separator)]
            # Blanks within a field: the commas are not what separates.
            if separator != "," or not any(" " in field or "\t" in field for field in fields):
                break
    else:
        fields = [field for field in line.split(" ") if field]
        separator = " "
    if separator == ",":
        return fields
    return [
        field.replace(",", ".") if _DECIMAL_COMMA.fullmatch(field) else field for field in fields
    ]


def _check(row: Sequence[float], texts: Sequence[str], where: str, first_frame: int) -> None:
    frame, track_id, confidence = row[0], row[1], row[6]
    if not (first_frame <= frame < LARGEST and frame.is_integer()):
        mend = "; pass `first_frame=0` where they count from 0" if frame == 0 else ""
        raise DetectionError(
            f"{where}: frame {texts[0]}, expected a whole number; frames count from "
            f"{first_frame}{mend}"
        )
    if track_id != UNTRACKED and not (-1 <= track_id < LARGEST and track_id.is_integer()):
        raise DetectionError(
            f"{where}: id {texts[1]}, expected a whole number from 0 on, -1 for none"
        )
    if not math.isfinite(confidence):
        raise DetectionError(f"{where}: confidence {texts[6]}, expected a finite number")
