"""A video file with the boxes of its people."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from sa_runtime.detections.base import Detections
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import IMAGE_SUFFIXES
from sa_runtime.items import Counts, Item, Row
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.reader import Frame, VideoReader, frame_digest


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSource:
    """A video and its boxes, whose first frame, 1, is the video's first.

    Attributes:
        path: anything OpenCV opens.
        detections: its boxes.
        camera: goes into every row.
    """

    needs_detections: ClassVar[bool] = True

    path: Path
    detections: Detections
    camera: str | None = None

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
                "lines of frame,id,left,top,width,height from a detector or tracker "
                f"(images are told by their suffix: {', '.join(IMAGE_SUFFIXES)})"
            )
        VideoReader(path).close()
        return cls(path=path, detections=options.detections, camera=options.camera)

    def __len__(self) -> int:
        return len(self.detections)

    def identity(self) -> dict[str, Any]:
        """Path, size and boxes; the pixels are not read."""
        found = self.detections
        arrays = (found.frames, found.track_ids, found.ltwh, found.confidences)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays))
        return {
            "video": str(self.path),
            "size_bytes": self.path.stat().st_size,
            "boxes": len(self),
            "detections": digest.hexdigest()[:16],
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames that have boxes; decoding stops after the last of them.

        A video that ends early gives what can be decoded; the boxes of later frames are counted.

        Raises:
            VideoError: the video cannot be opened.
        """
        boxes = self.detections
        if not after.done:
            counts.invalid_boxes += boxes.skipped
        groups = {frame: where for frame, where in boxes.groups() if frame > after.done}
        xyxy = boxes.xyxy
        waiting = int((boxes.frames > after.done).sum())
        with VideoReader(self.path) as video:
            if after.digest:
                video.skip_to(after.done, after.digest)
            for frame in video.frames(groups):
                counts.frames += 1
                where = groups[frame.number]
                rows = self._rows(frame, where)
                waiting -= len(rows)
                yield Item(frame.image, xyxy[where], rows, frame.number)
            counts.beyond_end += waiting
            if waiting and video.truncated:
                counts.truncated_videos.append(
                    f"{self.path}: ends at frame {video.decoded} of {video.announced}"
                )

    def digest(self, item: Item) -> str:
        """Hash of the frame and its time: by number alone, containers may lead to another frame."""
        seconds = item.rows[0].timestamp_s
        return "" if seconds is None else frame_digest(item.image, seconds)

    def _rows(self, frame: Frame, where: slice) -> list[Row]:
        boxes = self.detections
        return [
            Row(
                source=str(self.path),
                frame=frame.number,
                timestamp_s=frame.timestamp_s,
                track_id=None if track_id < 0 else track_id,
                left=left,
                top=top,
                width=width,
                height=height,
                confidence=confidence,
                camera=self.camera,
            )
            for track_id, (left, top, width, height), confidence in zip(
                boxes.track_ids[where].tolist(),
                boxes.ltwh[where].tolist(),
                boxes.confidences[where].tolist(),
                strict=True,
            )
        ]
