"""A video file with the boxes of its people."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from sa_runtime.detections.base import Detections
from sa_runtime.detections.choice import chosen
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import IMAGE_SUFFIXES
from sa_runtime.items import Counts, Item
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.people import FrameBoxes, boxes_by_frame, item_of
from sa_runtime.sources.reader import Frame, VideoReader, frame_digest


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSource:
    """A video and its boxes, whose first frame, 1, is the video's first.

    Attributes:
        path: anything OpenCV opens.
        detections: its boxes.
        camera: goes into every row.
        boxes: which boxes are used, and how far they are moved out.
    """

    needs_detections: ClassVar[bool] = True

    path: Path
    detections: Detections
    camera: str | None = None
    boxes: BoxOptions = dataclasses.field(default_factory=BoxOptions)

    @classmethod
    def takes(cls, location: str) -> bool:
        """Everything that is no folder."""
        return not Path(location).is_dir()

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """A video that can be opened.

        Raises:
            InputError: no such file, or no boxes for it.
            VideoError: a file that cannot be opened as a video.
        """
        path = Path(location)
        if not path.exists():
            raise MissingFileError(
                f"{location}: no such file or folder; expected images, a folder or a video",
                path=path,
            )
        if options.detections is None:
            raise InputError(
                f"{location}: a video without boxes; pass `detections=FILE` for it, "
                "of a detector or tracker, or the folder in which such a file has its name "
                f"(images are told by their suffix: {', '.join(IMAGE_SUFFIXES)})"
            )
        with VideoReader(path) as video:
            detections = chosen(options.detections, options.boxes, fps=video.fps, size=video.size)
        return cls(path=path, detections=detections, camera=options.camera, boxes=options.boxes)

    def __len__(self) -> int:
        return len(self.detections)

    def identity(self) -> dict[str, Any]:
        """Path, size and boxes; the pixels are not read."""
        return {
            "video": str(self.path),
            "size_bytes": self.path.stat().st_size,
            "boxes": len(self),
            "detections": self.detections.digest(),
            **self.boxes.identity(),
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames that have boxes; decoding stops after the last of them.

        A video that ends early gives what can be decoded; the boxes of later frames are counted.

        Raises:
            VideoError: the video cannot be opened.
        """
        detections = self.detections
        if not after.done:
            counts.invalid_boxes += detections.skipped
            counts.filtered_boxes += detections.filtered
        waiting = len(detections) - detections.behind(after.done)
        asked: deque[FrameBoxes] = deque()

        def numbers() -> Iterator[int]:
            for boxes in boxes_by_frame(detections, after.done):
                asked.append(boxes)
                yield boxes.frame

        with VideoReader(self.path) as video:
            if after.digest:
                video.skip_to(after.done, after.digest)
            for frame in video.frames(numbers()):
                boxes = asked.popleft()
                counts.frames += 1
                waiting -= len(boxes.ltwh)
                item = self.item(frame, boxes, counts)
                if item.rows:
                    yield item
            counts.beyond_end += waiting
            if waiting:
                self.note_cut(video, counts)

    def item(self, frame: Frame, boxes: FrameBoxes, counts: Counts) -> Item:
        """A frame with its people; boxes that cannot be used are counted."""
        return item_of(
            frame.image,
            boxes,
            self.boxes,
            counts,
            source=str(self.path),
            timestamp_s=frame.timestamp_s,
            camera=self.camera,
            normalized=self.detections.normalized,
        )

    def note_cut(self, reader: VideoReader, counts: Counts) -> None:
        """Name the video if it ended before the frames that it announces."""
        if reader.truncated:
            counts.truncated_videos.append(
                f"{self.path}: ends at frame {reader.decoded} of {reader.announced}"
            )

    def digest(self, item: Item) -> str:
        """Hash of the frame and its time: by number alone, containers may lead to another frame."""
        seconds = item.rows[0].timestamp_s
        return "" if seconds is None else frame_digest(item.image, seconds)
