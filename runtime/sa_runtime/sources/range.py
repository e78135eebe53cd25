"""A range of the frames of a video, for several processes that share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sa_runtime.items import Counts, Item
from sa_runtime.sources.base import START, OnSkip, Place, ignore
from sa_runtime.sources.people import FrameBoxes, boxes_by_frame
from sa_runtime.sources.reader import Frame, VideoReader, frame_digest
from sa_runtime.sources.video import VideoSource


class RangeSource:
    """Frames ``first`` to ``stop - 1`` of a video with their boxes.

    The reader goes to the key frame before ``first`` and decodes from there. Containers may lead
    elsewhere: so the digests of frame ``first``, as found here, and of frame ``stop``, reached by
    decoding on, are told. Where the ``stop`` of one range is the ``first`` of the next, and the
    first of all was reached from the start, every range was where it should be.

    Args:
        video: with all its boxes.
        first: number of the first frame, from 1.
        stop: number behind the last one, 0 for all that follow.
        seek: whether the container is asked for the place; else everything before is decoded.
        on_end: given ``first`` or ``stop`` and the digest of that frame, when it is there.
    """

    def __init__(
        self,
        video: VideoSource,
        first: int,
        stop: int,
        *,
        seek: bool = True,
        on_end: Callable[[str, str], None] = lambda which, digest: None,
    ) -> None:
        self.video, self.first, self.stop, self.seek = video, first, stop, seek
        self._on_end = on_end
        detections = video.detections
        self._from = detections.behind(first - 1)
        self._to = detections.behind(stop - 1) if stop else len(detections)

    def __len__(self) -> int:
        return self._to - self._from

    def identity(self) -> dict[str, Any]:
        """That of the video, and the range."""
        return {**self.video.identity(), "frames": [self.first, self.stop]}

    def digest(self, item: Item) -> str:
        """As the video's."""
        return self.video.digest(item)

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames of the range that have boxes.

        Raises:
            VideoError: the video cannot be opened.
        """
        video, detections = self.video, self.video.detections
        if self.first == 1 and not after.done:
            counts.invalid_boxes += detections.skipped
            counts.filtered_boxes += detections.filtered
        waiting = self._to - max(self._from, detections.behind(after.done))
        asked: deque[FrameBoxes | None] = deque()

        def numbers() -> Iterator[int]:
            for number, boxes in self._wanted(after.done):
                asked.append(boxes)
                yield number

        with VideoReader(video.path) as reader:
            if after.digest:
                reader.skip_to(after.done, after.digest)
            elif self.seek and self.first > 1:
                reader.seek(self.first)
            for frame in reader.frames(numbers()):
                boxes = asked.popleft()
                if frame.number == self.first:
                    self._on_end("first", _digest(frame))
                if self.stop and frame.number == self.stop:
                    self._on_end("stop", _digest(frame))
                if boxes is None:
                    continue
                counts.frames += 1
                waiting -= len(boxes.ltwh)
                item = video.item(frame, boxes, counts)
                if item.rows:
                    yield item
            counts.beyond_end += waiting
            if waiting and not counts.truncated_videos:
                video.note_cut(reader, counts)

    def _wanted(self, done: int) -> Iterator[tuple[int, FrameBoxes | None]]:
        """The frames behind ``done`` with their boxes; the two ends without, if they have none."""
        begun = done >= self.first
        for boxes in boxes_by_frame(self.video.detections, max(done, self.first - 1)):
            if self.stop and boxes.frame >= self.stop:
                break
            if not begun and boxes.frame > self.first:
                yield self.first, None
            begun = True
            yield boxes.frame, boxes
        if not begun:
            yield self.first, None
        if self.stop:
            yield self.stop, None


def ranges(video: VideoSource, frames: int) -> list[tuple[int, int]]:
    """The first and the ``stop`` of every range of so many frames, up to the last with boxes.

    >>> cuts(25, 10)
    [(1, 11), (11, 21), (21, 0)]
    """
    last = 0
    for block in video.detections.blocks():
        if len(block.frames):
            last = max(last, int(np.max(block.frames)))
    return cuts(last, frames)


def cuts(last: int, frames: int) -> list[tuple[int, int]]:
    """Ranges of so many of ``last`` frames; the last one is open, its ``stop`` is 0."""
    starts = list(range(1, max(last, 1) + 1, frames))
    return list(zip(starts, [*starts[1:], 0], strict=True))


def _digest(frame: Frame) -> str:
    # Without times the frames of a still scene cannot be told apart: nothing is proven then.
    return "" if frame.timestamp_s is None else frame_digest(frame.image, frame.timestamp_s)
