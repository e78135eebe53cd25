"""Boxes of a video, as every format is read into."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import mmap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sa_runtime.errors import DetectionError

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK_BOXES = 2**17
"""Boxes that are copied out of a large file at a time: 8 MB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """The usable boxes of a video, ordered by frame; boxes of one frame stand as in the file.

    Threads may share it: nothing here writes into its arrays.

    Attributes:
        frames: (N,) int64, ascending, from 1.
        track_ids: (N,) int64; -1 where the file gives none.
        ltwh: (N, 4) float64 left, top, width, height, finite, of positive size; in pixels, or in
            parts of the frame's width and height where ``normalized`` is set.
        confidences: (N,) float64; 1 where the file gives none.
        skipped: boxes that were left out because they are not finite or have no size.
        filtered: boxes that were left out because of their confidence or class.
        normalized: whether boxes are parts of their frame.
        image_names: the file of each frame, where the format names files.
        qualities: (N,) float64 from 0 to 1, where the best boxes of tracks were chosen by them.
        mapping: the temporary file that holds the arrays of a large file.
    """

    frames: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    ltwh: NDArray[np.float64]
    confidences: NDArray[np.float64]
    skipped: int = 0
    filtered: int = 0
    normalized: bool = False
    image_names: Mapping[int, str] | None = None
    qualities: NDArray[np.float64] | None = None
    mapping: mmap.mmap | None = dataclasses.field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def from_arrays(
        cls,
        frames: ArrayLike,
        xyxy: ArrayLike,
        *,
        track_ids: ArrayLike | None = None,
        confidences: ArrayLike | None = None,
        first_frame: int = 1,
    ) -> Self:
        """Boxes that a program holds.

        Args:
            frames: (N,) whole numbers, in any order.
            xyxy: (N, 4) ``x0, y0, x1, y1`` in pixels.
            track_ids: (N,) whole numbers; -1 for none.
            confidences: (N,) numbers.
            first_frame: number of the video's first frame, such as 0.

        Raises:
            DetectionError: counts that differ, or frames before the first.

        >>> Detections.from_arrays([0, 0], [[1, 2, 5, 9], [3, 3, 3, 3]], first_frame=0).skipped
        1
        """
        from sa_runtime.detections.arrays import columns_of

        return cls(**columns_of(frames, xyxy, track_ids, confidences, first_frame=first_frame))

    @classmethod
    def from_supervision(
        cls, detections: Iterable[Any] | Mapping[int, Any], *, first_frame: int = 1
    ) -> Self:
        """What ``supervision.Detections`` hold, one for each frame.

        Args:
            detections: of the frames in order, the first one first; or number of frame -> its
                detections.
            first_frame: number of the video's first frame in a mapping, such as 0.

        Raises:
            DetectionError: frames before the first.
        """
        from sa_runtime.detections.arrays import supervision_columns

        return cls(**supervision_columns(detections, first_frame=first_frame))

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

    def behind(self, frame: int) -> int:
        """Index of the first box of a later frame."""
        return bisect.bisect_right(self.frames, frame)

    def blocks(self, after: int = 0, boxes: int = BLOCK_BOXES) -> Iterator[Detections]:
        """The boxes of later frames in blocks of whole frames, each a copy.

        Args:
            after: the last frame that is left out.
            boxes: in a block, until the frame that reaches it is whole.
        """
        start, end = self.behind(after), len(self)
        while start < end:
            stop = min(start + boxes, end)
            stop = self.behind(int(self.frames[stop - 1]))
            part = slice(start, stop)
            yield dataclasses.replace(
                self,
                frames=np.array(self.frames[part]),
                track_ids=np.array(self.track_ids[part]),
                ltwh=np.array(self.ltwh[part]),
                confidences=np.array(self.confidences[part]),
                qualities=None if self.qualities is None else self.qualities[part],
                mapping=None,
            )
            self.release()
            start = stop

    def chosen(self, kept: NDArray[np.bool_]) -> Detections:
        """Those of some boxes.

        Args:
            kept: (N,) bool.
        """
        return dataclasses.replace(
            self,
            frames=self.frames[kept],
            track_ids=self.track_ids[kept],
            ltwh=self.ltwh[kept],
            confidences=self.confidences[kept],
            qualities=None if self.qualities is None else self.qualities[kept],
            mapping=None,
        )

    def digest(self) -> str:
        """Hash of all boxes."""
        digest = hashlib.sha256()
        for array in (self.frames, self.track_ids, self.ltwh, self.confidences):
            for start in range(0, len(array), BLOCK_BOXES):
                digest.update(np.ascontiguousarray(array[start : start + BLOCK_BOXES]).data)
                self.release()
        return digest.hexdigest()[:16]

    def release(self) -> None:
        """Let the system take back the memory of what was read of a large file."""
        if self.mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


def require_pixels(detections: Detections, path: Path) -> None:
    """Refuse boxes that are parts of their frame instead of pixels.

    Raises:
        DetectionError: there are boxes, and all lie below one pixel.
    """
    if detections.normalized or not len(detections):
        return
    for block in detections.blocks():
        xyxy = block.xyxy
        if xyxy.min() < -1 or xyxy.max() > 1:
            return
    raise DetectionError(
        f"{path}: all {len(detections)} boxes lie below one pixel, as coordinates from 0 to 1 "
        "do; expected pixels: multiply them by the width and height of the frame, or pass "
        "`normalized=True`"
    )
