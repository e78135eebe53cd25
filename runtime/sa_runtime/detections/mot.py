"""Detection files in MOTChallenge's text format.

One box a line, ``frame,id,left,top,width,height[,conf[,...]]``, separated by commas or blanks;
frames count from 1 and lines may come in any order.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sa_runtime.detections.base import Detections
from sa_runtime.errors import DetectionError, MissingFileError, shown

FORMAT = "frame,id,left,top,width,height[,conf,...]"
_LARGEST = 2**53
"""Integers up to here survive being written as floats, as some detectors do."""


def read_mot(path: Path) -> Detections:
    """Read a MOTChallenge text file.

    Args:
        path: the text file; an empty one holds no boxes.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else DetectionError
        raise kind(
            f"{path}: cannot be read ({reason}); expected a text file of lines {FORMAT}", path=path
        ) from exc
    parsed = [
        _parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    table = np.array(parsed, np.float64).reshape(-1, 7)
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


def _parse(line: str, where: str) -> list[float]:
    """frame, id, left, top, width, height, confidence of one line."""
    fields = line.replace(",", " ").split()
    if len(fields) < 6:
        raise DetectionError(f"{where}: {len(fields)} fields in {shown(line)}, expected {FORMAT}")
    try:
        values = [float(field) for field in fields[:7]]
    except ValueError as exc:
        raise DetectionError(
            f"{where}: {shown(line)} does not hold numbers, expected {FORMAT}"
        ) from exc
    frame, track_id = values[:2]
    if not (1 <= frame < _LARGEST and frame.is_integer()):
        raise DetectionError(
            f"{where}: frame {fields[0]}, expected a whole number; frames count from 1"
        )
    if not (abs(track_id) < _LARGEST and track_id.is_integer()):
        raise DetectionError(f"{where}: id {fields[1]}, expected a whole number, -1 for none")
    if len(values) < 7:
        values.append(1.0)
    if not math.isfinite(values[6]):
        raise DetectionError(f"{where}: confidence {fields[6]}, expected a finite number")
    return values
