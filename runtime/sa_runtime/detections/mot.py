"""Detection files in MOTChallenge's text format, as it is met.

One box a line, ``frame,id,left,top,width,height[,conf[,...]]``; frames count from 1 and lines may
come in any order. Fields stand between semicolons, commas, tabs or blanks, whichever a line has
first in this order; between all but blanks a field may be empty (no id, confidence 1). A comma may
be the decimal sign where semicolons, tabs or blanks separate. A first line of names says which
column is which, and whether boxes are given by their size or by their right and lower edges.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.base import Detections
from sa_runtime.errors import DetectionError, MissingFileError, shown

FORMAT = "frame,id,left,top,width,height[,conf,...]"
_LARGEST = 2**53
"""Integers up to here survive being written as floats, as some detectors do."""
_UNTRACKED = 2.0**64
"""What 18446744073709551615 is as a float: DeepStream's id of an object that is not tracked."""
_MOST_FIELDS = 10
"""Of MOTChallenge: three world coordinates follow the confidence."""

_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.I | re.A
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:e[+-]?\d+)?", re.I | re.A)
_NOT_PLAIN = re.compile(r"[^0-9+\-.e, ]|, *(?:,|$)|^ *,", re.I)
"""A sign that needs a closer look, or an empty field."""

Table = NDArray[np.float64]
"""(N, 7): frame, id, left, top, width, height, confidence."""


class _Columns(NamedTuple):
    """Where the numbers stand in a line; -1 for one that no line holds."""

    frame: int = 0
    id: int = 1
    left: int = 2
    top: int = 3
    right: int = 4
    bottom: int = 5
    confidence: int = 6
    corners: bool = False
    """Whether ``right`` and ``bottom`` are edges instead of width and height."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the seven mean."""
        ends = ("right", "bottom") if self.corners else ("width", "height")
        return ("frame", "id", "left", "top", *ends, "confidence")

    @property
    def least(self) -> int:
        """Fields that a line must have."""
        return max(self.frame, self.left, self.top, self.right, self.bottom) + 1


_UNNAMED = _Columns()
_DEFAULTS = (np.nan, -1, np.nan, np.nan, np.nan, np.nan, 1)
_NAMES = {
    "frame": "frame frameid framenumber framenum frameno framenr",
    "id": "id trackid track objectid objid identity targetid personid",
    "left": "left bbleft bboxleft boxleft x1 xmin bbx1 bboxx1 x0 x bbx bboxx",
    "top": "top bbtop bboxtop boxtop y1 ymin bby1 bboxy1 y0 y bby bboxy",
    "width": "width w bbwidth bboxwidth boxwidth bbw bboxw",
    "height": "height h bbheight bboxheight boxheight bbh bboxh",
    "right": "right bbright bboxright boxright x2 xmax bbx2 bboxx2",
    "bottom": "bottom bbbottom bboxbottom boxbottom y2 ymax bby2 bboxy2",
    "confidence": "conf confidence score detconf detscore probability prob",
}
"""What a column is called, without regard to case and signs; of two that fit, the former counts."""


def read_mot(path: Path) -> Detections:
    """Read a MOTChallenge text file.

    Args:
        path: the text file; an empty one holds no boxes.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    lines = _text(path).split("\n")
    columns, begin = _header(lines, path)
    table = _plain_table(lines[begin:], columns)
    if table is None:
        parsed = [
            _parse(line, f"{path}:{number}", columns or _UNNAMED)
            for number, line in enumerate(lines[begin:], begin + 1)
            if line.strip()
        ]
        table = np.array(parsed, np.float64).reshape(-1, 7)
    if columns is not None and columns.corners:
        with np.errstate(invalid="ignore"):  # of infinities, which are left out below
            table[:, 4:6] -= table[:, 2:4]
    table[table[:, 1] == _UNTRACKED, 1] = -1
    usable = np.asarray(np.isfinite(table[:, 2:6]).all(axis=1), np.bool_)
    usable &= (table[:, 4] > 0) & (table[:, 5] > 0)
    table = table[usable]
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Detections(
        frames=table[:, 0].astype(np.int64),
        track_ids=table[:, 1].astype(np.int64),
        ltwh=table[:, 2:6],
        confidences=table[:, 6],
        skipped=int((~usable).sum()),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else DetectionError
        raise kind(
            f"{path}: cannot be read ({reason}); expected a text file of lines {FORMAT}", path=path
        ) from exc


def _header(lines: Sequence[str], path: Path) -> tuple[_Columns | None, int]:
    """The columns by the first line that is not blank, if it has names, and where boxes begin."""
    begin = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    if begin == len(lines):
        return None, begin
    line = lines[begin].strip("# ")
    separator = next((sign for sign in ";,\t" if sign in line), None)
    names = [name.strip("\"' ") for name in line.split(separator)]
    if not any(name[:1].isalpha() for name in names) or any(map(_NUMBER.fullmatch, names)):
        return None, begin
    plain = [re.sub(r"[^0-9a-z]", "", name.lower()) for name in names]
    where = {
        role: next((plain.index(name) for name in known.split() if name in plain), -1)
        for role, known in _NAMES.items()
    }
    corners = where["right"] >= 0 and where["bottom"] >= 0
    sized = where["width"] >= 0 and where["height"] >= 0
    lacking = [role for role in ("frame", "left", "top") if where[role] < 0]
    if not corners and not sized:
        lacking.append("width and height, or right and bottom")
    if lacking:
        raise DetectionError(
            f"{path}:{begin + 1}: a line of names, {shown(lines[begin])}, without "
            f"{', '.join(lacking)}; expected names as frame,id,left,top,width,height,conf or "
            "frame,id,x1,y1,x2,y2,conf, or no line of names"
        )
    # Where a file has both, the size counts: it needs no edge.
    ends = ("width", "height") if sized else ("right", "bottom")
    return _Columns(
        frame=where["frame"],
        id=where["id"],
        left=where["left"],
        top=where["top"],
        right=where[ends[0]],
        bottom=where[ends[1]],
        confidence=where["confidence"],
        corners=not sized,
    ), begin + 1


def _plain_table(lines: Sequence[str], columns: _Columns | None) -> Table | None:
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
        columns = _Columns(confidence=6 if size > 6 else -1)
        alike &= 6 <= size <= _MOST_FIELDS
    if not alike or size <= max(columns[:7]):
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
    table = np.empty((len(kept), 7))
    for index, (column, default) in enumerate(zip(columns[:7], _DEFAULTS, strict=True)):
        table[:, index] = values[column::size] if column >= 0 else default
    frames, ids = table[:, 0], table[:, 1]
    right = (frames >= 1) & (frames < _LARGEST) & (frames == np.floor(frames))
    right &= (ids >= -1) & (ids < _LARGEST) & (ids == np.floor(ids)) & np.isfinite(table[:, 6])
    return table if right.all() else None


def _parse(line: str, where: str, columns: _Columns) -> list[float]:
    """The row of the table of one line; its right and lower edge where those are given."""
    fields = _fields(line)
    if len(fields) < columns.least:
        raise DetectionError(f"{where}: {len(fields)} fields in {shown(line)}, expected {FORMAT}")
    if len(fields) > _MOST_FIELDS and "." not in line and columns is _UNNAMED:
        raise DetectionError(
            f"{where}: {len(fields)} fields in {shown(line)}, expected at most {_MOST_FIELDS}; if "
            "its commas are decimal signs, separate the fields by semicolons"
        )
    texts = [fields[column] if 0 <= column < len(fields) else "" for column in columns[:7]]
    texts[1], texts[6] = texts[1] or "-1", texts[6] or "1"
    for name, text in zip(columns.names, texts, strict=True):
        if not _NUMBER.fullmatch(text):
            raise DetectionError(
                f"{where}: {shown(line)} does not hold numbers ({shown(text)} as {name}), "
                f"expected {FORMAT}"
            )
    row = [float(text) for text in texts]
    _check(row, texts, where)
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


def _check(row: Sequence[float], texts: Sequence[str], where: str) -> None:
    frame, track_id, confidence = row[0], row[1], row[6]
    if not (1 <= frame < _LARGEST and frame.is_integer()):
        mend = ": add 1 to each, as awk -F, -v OFS=, '{$1 += 1} 1' does" if frame == 0 else ""
        raise DetectionError(
            f"{where}: frame {texts[0]}, expected a whole number; frames count from 1{mend}"
        )
    if track_id != _UNTRACKED and not (-1 <= track_id < _LARGEST and track_id.is_integer()):
        raise DetectionError(
            f"{where}: id {texts[1]}, expected a whole number from 0 on, -1 for none"
        )
    if not math.isfinite(confidence):
        raise DetectionError(f"{where}: confidence {texts[6]}, expected a finite number")
