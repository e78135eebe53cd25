"""Columns of numbers, as tables hold them, checked and made into chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.errors import DetectionError

LARGEST = 2**53
"""Integers up to here survive being written as floats, as some detectors do."""
UNTRACKED = 2.0**64
"""What 18446744073709551615 is as a float: DeepStream's id of an object that is not tracked."""


def chunk_of(
    columns: Mapping[str, NDArray[np.float64]],
    where: Callable[[int], str],
    *,
    first_frame: int = 1,
    classes: Labels | None = None,
    videos: Labels | None = None,
) -> Chunk:
    """Boxes of named columns.

    Args:
        columns: ``frame``, ``id``, ``confidence``, ``left`` and ``top`` or ``cx`` and ``cy``,
            ``width`` and ``height`` or ``right`` and ``bottom``; (N,) each. What is empty is NaN;
            ids and confidences may be, or be left away.
        where: names the row of an index in a message.
        first_frame: the number that the first frame has.
        classes: of the rows.
        videos: of the rows.

    Raises:
        DetectionError: a number that cannot be, with its row.
    """
    frames = columns["frame"]
    nothing = np.full(len(frames), np.nan)
    ids = columns.get("id", nothing)
    ids = np.where(np.isnan(ids) | (ids == UNTRACKED), -1.0, ids)
    confidences = columns.get("confidence", nothing)
    confidences = np.where(np.isnan(confidences), 1.0, confidences)
    _check_frames(frames, where, first_frame)
    _require(
        (ids >= -1) & (ids < LARGEST) & (ids == np.floor(ids)),
        ids,
        where,
        "id {}, expected a whole number from 0 on, -1 for none",
    )
    _require(
        np.isfinite(confidences), confidences, where, "confidence {}, expected a finite number"
    )
    return Chunk(
        frames=frames.astype(np.int64) - (first_frame - 1),
        track_ids=ids.astype(np.int64),
        ltwh=_ltwh(columns),
        confidences=confidences,
        classes=classes,
        videos=videos,
    )


def _ltwh(columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # of infinities, which are left out later
        if "right" in columns:
            left, top = columns["left"], columns["top"]
            sides = [left, top, columns["right"] - left, columns["bottom"] - top]
        else:
            width, height = columns["width"], columns["height"]
            if "cx" in columns:
                left, top = columns["cx"] - width / 2, columns["cy"] - height / 2
            else:
                left, top = columns["left"], columns["top"]
            sides = [left, top, width, height]
    return np.stack(sides, axis=1)


def _check_frames(frames: NDArray[np.float64], where: Callable[[int], str], first: int) -> None:
    right = (frames >= first) & (frames < LARGEST) & (frames == np.floor(frames))
    if not right.all() and (frames[~right][0] == 0):
        text = f"frame {{}}, expected a whole number; frames count from {first}"
        _require(right, frames, where, text + ": pass `first_frame=0` where they count from 0")
    _require(right, frames, where, f"frame {{}}, expected a whole number from {first} on")


def _require(
    right: NDArray[np.bool_], values: NDArray[np.float64], where: Callable[[int], str], text: str
) -> None:
    if not right.all():
        index = int(np.flatnonzero(~right)[0])
        raise DetectionError(f"{where(index)}: {text.format(f'{values[index]:g}')}")
