"""Boxes that a program holds: NumPy arrays, and what ``supervision`` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sa_runtime.errors import DetectionError


def columns_of(
    frames: ArrayLike,
    xyxy: ArrayLike,
    track_ids: ArrayLike | None,
    confidences: ArrayLike | None,
    *,
    first_frame: int,
) -> dict[str, Any]:
    """The fields of :class:`~sa_runtime.detections.base.Detections`; see its ``from_arrays``."""
    numbers = _whole(frames, "frames") - (first_frame - 1)
    boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
    count = len(numbers)
    ids = np.full(count, -1, np.int64) if track_ids is None else _whole(track_ids, "track_ids")
    scores = np.ones(count) if confidences is None else np.asarray(confidences, np.float64)
    if not len(boxes) == len(ids) == len(scores) == count:
        raise DetectionError(
            f"{count} frames, {len(boxes)} boxes, {len(ids)} ids and {len(scores)} confidences: "
            "expected as many of each"
        )
    if count and numbers.min() < 1:
        first = int(numbers.min()) + first_frame - 1
        raise DetectionError(
            f"frame {first}: before the first, {first_frame}; pass `first_frame={first}` where "
            "frames count from there"
        )
    ltwh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    usable = np.isfinite(ltwh).all(axis=1) & (ltwh[:, 2] > 0) & (ltwh[:, 3] > 0)
    order = np.flatnonzero(usable)[np.argsort(numbers[usable], kind="stable")]
    return {
        "frames": numbers[order],
        "track_ids": ids[order],
        "ltwh": ltwh[order],
        "confidences": scores[order],
        "skipped": count - len(order),
    }


def supervision_columns(
    detections: Iterable[Any] | Mapping[int, Any], *, first_frame: int
) -> dict[str, Any]:
    """The same of ``supervision.Detections``, one for each frame; see ``from_supervision``."""
    if isinstance(detections, Mapping):
        numbered = list(detections.items())
    else:
        numbered, first_frame = list(enumerate(detections, 1)), 1
    frames, boxes, ids, scores = [], [np.empty((0, 4))], [], []
    for number, found in numbered:
        xyxy = np.asarray(found.xyxy, np.float64).reshape(-1, 4)
        boxes.append(xyxy)
        frames += [number] * len(xyxy)
        # Both are None where a detector or tracker gave none.
        ids.append(np.full(len(xyxy), -1) if found.tracker_id is None else found.tracker_id)
        scores.append(np.ones(len(xyxy)) if found.confidence is None else found.confidence)
    return columns_of(
        np.array(frames, np.int64),
        np.concatenate(boxes),
        np.concatenate([np.empty(0, np.int64), *ids]),
        np.concatenate([np.empty(0), *scores]),
        first_frame=first_frame,
    )


def _whole(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values).reshape(-1)
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise DetectionError(f"{name}: expected whole numbers, got {array.dtype} with fractions")
    return whole
