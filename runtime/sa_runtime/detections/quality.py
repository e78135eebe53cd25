"""How well a box shows its person, told from boxes alone, from 0 to 1.

The product of

- size: the square root of its area over that of 128x256 pixels, 1 at most;
- visibility: the part of it that lies inside the frame;
- freedom: 1 less the largest part of it that another box covers which reaches lower, and so stands
  nearer to the camera;
- shape: how near its height over its width is to 2.5, as the smaller over the larger of the two;
- confidence, within 0 and 1.

No pixel is looked at: blur and light are not in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.base import Detections

_WHOLE_SIZE = 128 * 256
_SHAPE = 2.5


def qualities(boxes: Detections, size: tuple[int, int] | None) -> NDArray[np.float64]:
    """The quality of each box.

    Args:
        boxes: of whole frames, N.
        size: width and height of the frames; where it is not known, every box counts as inside.

    Returns:
        (N,) from 0 to 1.
    """
    ltwh = boxes.ltwh
    if boxes.normalized:
        ltwh = ltwh * np.tile(size or (1, 1), 2)
    area = ltwh[:, 2] * ltwh[:, 3]
    found = np.minimum(1, np.sqrt(area / _WHOLE_SIZE))
    ratio = ltwh[:, 3] / ltwh[:, 2] / _SHAPE
    found *= np.minimum(ratio, 1 / ratio) * np.clip(boxes.confidences, 0, 1)
    low, high = ltwh[:, :2], ltwh[:, :2] + ltwh[:, 2:]
    if size is not None:
        inside = np.maximum(np.minimum(high, size) - np.maximum(low, 0), 0)
        found *= inside.prod(axis=1) / area
    for _, where in boxes.groups():
        found[where] *= _free(low[where], high[where])
    return found


def _free(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of each box of one frame that no nearer box covers, by the largest of them."""
    if len(low) == 1:
        return np.ones(1)
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    covered = np.maximum(shared, 0).prod(axis=2) / (high - low).prod(axis=1)[:, None]
    covered *= high[None, :, 1] > high[:, None, 1]
    return np.asarray(1 - covered.max(axis=1))
