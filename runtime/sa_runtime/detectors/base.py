"""What a detector is, and the boxes it may return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Image
from sa_runtime.errors import DetectionError

Detector = Callable[[Image], Any]
"""Takes a frame, (H, W, 3) uint8 BGR; returns what :func:`found_of` reads."""


class Found(NamedTuple):
    """The boxes of a frame.

    Attributes:
        xyxy: (N, 4) float64 ``x0, y0, x1, y1`` in pixels.
        confidences: (N,) float64.
        track_ids: (N,) int64; -1 for none.
        classes: (N,) names or numbers, where the detector tells and has not chosen by them.
    """

    xyxy: NDArray[np.float64]
    confidences: NDArray[np.float64]
    track_ids: NDArray[np.int64]
    classes: tuple[str, ...] | None = None


def found_of(result: Any) -> Found:
    """The boxes that a detector has returned.

    Args:
        result: a :class:`Found`; an object with ``xyxy`` and perhaps ``confidence``, ``class_id``
            and ``tracker_id``, as ``supervision.Detections`` has; or an array of rows ``x0, y0,
            x1, y1``, then the confidence and the class where there are such.

    Raises:
        DetectionError: anything else.

    >>> found_of([[1, 2, 3, 4, 0.5]]).confidences.tolist()
    [0.5]
    """
    if isinstance(result, Found):
        return result
    if hasattr(result, "xyxy"):
        xyxy = np.asarray(result.xyxy, np.float64).reshape(-1, 4)
        count = len(xyxy)
        confidence = getattr(result, "confidence", None)
        ids, classes = getattr(result, "tracker_id", None), getattr(result, "class_id", None)
        return Found(
            xyxy,
            np.ones(count) if confidence is None else np.asarray(confidence, np.float64),
            np.full(count, -1, np.int64) if ids is None else np.asarray(ids, np.int64),
            None if classes is None else tuple(map(str, classes)),
        )
    try:
        table = np.asarray(result, np.float64)
    except (TypeError, ValueError):
        table = np.empty((0, 0))
        if not isinstance(result, list | tuple) or len(result):
            raise DetectionError(_unfit(f"a {type(result).__name__}")) from None
    if table.size == 0:
        table = table.reshape(0, 4)
    if table.ndim != 2 or not 4 <= table.shape[1] <= 6:
        raise DetectionError(_unfit(f"an array of shape {table.shape}"))
    count, width = table.shape
    return Found(
        table[:, :4],
        table[:, 4] if width > 4 else np.ones(count),
        np.full(count, -1, np.int64),
        tuple(f"{one:g}" for one in table[:, 5]) if width > 5 else None,
    )


def _unfit(came: str) -> str:
    return (
        f"the detector returned {came}; expected rows x0, y0, x1, y1[, confidence[, class]], or an "
        "object with `xyxy`"
    )
