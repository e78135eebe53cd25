"""Sequences of MOTChallenge that a user has: ``img1``, ``gt/gt.txt`` and ``det/det.txt`` each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.table import read_detections

_FIELDS_WITH_CLASS = 9
"""Of a ground truth of 2016 and later; that of 2015 has ten, and holds people alone."""


def sequences(home: Path) -> list[Path]:
    """The sequences of a folder, or the one that it is."""
    found = sorted(path.parent for path in (*home.glob("img1"), *home.glob("*/img1")))
    if not found:
        raise SystemExit(f"{home}: no sequences of MOTChallenge in it; expected NAME/img1")
    return found


def truth_of(sequence: Path) -> Detections:
    """The people that count: of class 1, and not of confidence 0, which marks what does not."""
    path = sequence / "gt" / "gt.txt"
    with path.open() as file:
        fields = len(file.readline().split(","))
    people = ("1",) if fields == _FIELDS_WITH_CLASS else ()
    return read_detections(path, options=BoxOptions(classes=people, min_confidence=0.5))


def frames_of(sequence: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and picture of each frame, in order."""
    for path in sorted((sequence / "img1").iterdir()):
        image = cv2.imread(str(path))
        if image is not None:
            yield int(path.stem), np.asarray(image, np.uint8)
