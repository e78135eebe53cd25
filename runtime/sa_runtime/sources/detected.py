"""Videos whose people a detector finds while they are embedded."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Image
from sa_runtime.detections.base import Detections
from sa_runtime.detections.choice import keeps, require_rate
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.quality import qualities
from sa_runtime.detectors.base import Detector, found_of
from sa_runtime.errors import InputError, MissingFileError, bad_value
from sa_runtime.items import Counts, Item
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.people import FrameBoxes
from sa_runtime.sources.people import item_of as item_of_boxes
from sa_runtime.sources.reader import VideoReader, frame_digest


def people_in(
    frames: Iterable[tuple[int, float | None, Image]],
    detector: Detector,
    options: BoxOptions,
    counts: Counts,
    *,
    source: str,
    camera: str | None,
) -> Iterator[Item]:
    """The frames that show people.

    Args:
        frames: number, seconds and pixels of each, as they come.
        detector: finds the people.
        options: which boxes are used, and how far they are moved out.
        counts: gets the frames, and the boxes that are left out.
        source: goes into every row, as does the next.
        camera: its name.
    """
    for number, seconds, image in frames:
        counts.frames += 1
        item = item_of(
            image,
            detector,
            options,
            counts,
            frame=number,
            source=source,
            timestamp_s=seconds,
            camera=camera,
        )
        if item.rows:
            yield item


def item_of(
    image: Image,
    detector: Detector,
    options: BoxOptions,
    counts: Counts,
    *,
    frame: int,
    source: str,
    timestamp_s: float | None,
    camera: str | None,
) -> Item:
    """A frame with the people that a detector finds in it.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: finds them.
        options: which boxes are used, and how far they are moved out.
        counts: gets those that are left out.
        frame: number of the frame.
        source: goes into every row, as do the next two.
        timestamp_s: of the frame.
        camera: its name.
    """
    found = found_of(detector(image))
    xyxy = found.xyxy
    ltwh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    usable = np.isfinite(ltwh).all(axis=1) & (ltwh[:, 2] > 0) & (ltwh[:, 3] > 0)
    wanted = np.ones(len(ltwh), np.bool_)
    if options.min_confidence is not None:
        wanted &= found.confidences >= options.min_confidence
    if options.classes and found.classes is not None:
        names = {one.lower() for one in options.classes}
        # What finds people alone was told so, and may give them another name.
        wanted &= np.array([one.lower() in names for one in found.classes], np.bool_)
    counts.invalid_boxes += int((~usable).sum())
    counts.filtered_boxes += int((usable & ~wanted).sum())
    kept = usable & wanted
    boxes = FrameBoxes(frame, found.track_ids[kept], ltwh[kept], found.confidences[kept])
    if options.rated:
        height, width = image.shape[:2]
        boxes = boxes._replace(qualities=_qualities(boxes, (width, height)))
    return item_of_boxes(
        image, boxes, options, counts, source=source, timestamp_s=timestamp_s, camera=camera
    )


def _qualities(boxes: FrameBoxes, size: tuple[int, int]) -> NDArray[np.float64]:
    frames = np.full(len(boxes.ltwh), boxes.frame, np.int64)
    _, track_ids, ltwh, confidences, _ = boxes
    held = Detections(frames=frames, track_ids=track_ids, ltwh=ltwh, confidences=confidences)
    return qualities(held, size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectedVideo:
    """A video without boxes, and what finds them.

    Attributes:
        path: anything OpenCV opens.
        detector: finds the people of a frame.
        announced: frames that the video announces.
        camera: goes into every row.
        boxes: which boxes are used, and how far they are moved out.
    """

    needs_detections: ClassVar[bool] = False

    path: Path
    detector: Detector
    announced: int = 0
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
            InputError: no such file, or no detector.
            VideoError: a file that cannot be opened as a video.
        """
        path = Path(location)
        if not path.exists():
            raise MissingFileError(f"{location}: no such file; expected a video", path=path)
        if options.detector is None:
            raise InputError(f"{location}: no boxes; pass `detections` or `detector`")
        with VideoReader(path) as video:
            announced = video.announced
            require_rate(options.boxes, video.fps)
            refuse_tracks(location, options.boxes)
        return cls(
            path=path,
            detector=options.detector,
            announced=announced,
            camera=options.camera,
            boxes=options.boxes,
        )

    def __len__(self) -> int:
        """Nobody knows how many people it shows."""
        return 0

    def identity(self) -> dict[str, Any]:
        """Path, size and detector."""
        return {
            "video": str(self.path),
            "size_bytes": self.path.stat().st_size,
            "detector": name_of(self.detector),
            **self.boxes.identity(),
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames that show people.

        Raises:
            VideoError: the video cannot be opened.
        """
        with VideoReader(self.path) as video:
            if after.digest:
                video.skip_to(after.done, after.digest)
            numbers = itertools.count(after.done + 1)
            used = (one for one in numbers if keeps(one, self.boxes, video.fps))
            yield from people_in(
                video.frames(used),
                self.detector,
                self.boxes,
                counts,
                source=str(self.path),
                camera=self.camera,
            )
            if video.truncated:
                counts.truncated_videos.append(
                    f"{self.path}: ends at frame {video.decoded} of {video.announced}"
                )

    def digest(self, item: Item) -> str:
        """Hash of the frame and its time: by number alone, containers may lead to another frame."""
        seconds = item.rows[0].timestamp_s
        return "" if seconds is None else frame_digest(item.image, seconds)


def refuse_tracks(location: str, options: BoxOptions) -> None:
    """Refuse to choose the best of each track, before a detector has seen any.

    Raises:
        InputError: they are asked for.
    """
    if options.per_track is not None:
        raise bad_value(
            "per_track", options.per_track, f"{location} has no tracks; pass `detections` with ids"
        )


def name_of(detector: Detector) -> str:
    """What tells a detector from another one: its file and size, or its name."""
    path = getattr(detector, "path", None)
    if path is not None:
        return f"{path} of {Path(path).stat().st_size} bytes"
    return str(getattr(detector, "__qualname__", type(detector).__qualname__))
