"""Boxes of a video, as every format is read into."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import DetectionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """The usable boxes of a file, ordered by frame; boxes of one frame stand as in the file.

    Attributes:
        frames: (N,) int64, ascending, from 1.
        track_ids: (N,) int64; -1 where the file gives none.
        ltwh: (N, 4) float64 left, top, width, height in pixels, finite, of positive size.
        confidences: (N,) float64; 1 where the file gives none.
        skipped: boxes that were left out because they are not finite or have no size.
    """

    frames: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    ltwh: NDArray[np.float64]
    confidences: NDArray[np.float64]
    skipped: int

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def xyxy(self) -> NDArray[np.float64]:
        """(N, 4) ``x0, y0, x1, y1``."""
        return np.concatenate([self.ltwh[:, :2], self.ltwh[:, :2] + self.ltwh[:, 2:]], axis=1)

    def groups(self) -> list[tuple[int, slice]]:
        """Every frame with boxes and where its boxes stand, in order of frame."""
        frames, starts = np.unique(self.frames, return_index=True)
        borders = [*starts.tolist(), len(self)]
        return [
            (frame, slice(start, end))
            for frame, (start, end) in zip(frames.tolist(), pairwise(borders), strict=True)
        ]


def require_pixels(detections: Detections, path: Path) -> None:
    """Refuse boxes that are parts of their frame instead of pixels.

    Raises:
        DetectionError: there are boxes, and all lie below one pixel.
    """
    xyxy = detections.xyxy
    if len(xyxy) and xyxy.min() >= -1 and xyxy.max() <= 1:
        raise DetectionError(
            f"{path}: all {len(detections)} boxes lie below one pixel, as coordinates from 0 to 1 "
            "do; expected pixels: multiply them by the width and height of the frame"
        )
