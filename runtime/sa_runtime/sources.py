"""What there is to embed: image files, folders of them, videos with their detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sa_runtime import crops
from sa_runtime.errors import InputError
from sa_runtime.store import Row
from sa_runtime.video.decode import VideoReader
from sa_runtime.video.detections import Detections
from sa_runtime.video.pipeline import Item

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Files taken from a folder, whatever the case of their suffix."""

Skip = Callable[[InputError], None]
"""Told of an image that is left out."""


@dataclasses.dataclass(kw_only=True)
class SourceCounts:
    """What a run met in its sources; the items add to it as they are taken.

    Attributes:
        images: image files read.
        frames: video frames decoded to pixels: those with boxes.
        unreadable_images: image files left out because they cannot be decoded.
        invalid_boxes: boxes left out because they are not finite or have no size.
        beyond_end: boxes of frames after the last one that can be decoded.
        truncated_videos: videos that end before the frame count they announce, while boxes were
            still waiting.
    """

    images: int = 0
    frames: int = 0
    unreadable_images: int = 0
    invalid_boxes: int = 0
    beyond_end: int = 0
    truncated_videos: list[str] = dataclasses.field(default_factory=list)


def is_image(path: Path) -> bool:
    """Whether the suffix is one of :data:`IMAGE_SUFFIXES`."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def find_images(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by path.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.rglob("*") if is_image(path) and path.is_file())
    if not found:
        raise InputError(
            f"{folder}: no images below it; expected files that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def image_items(
    paths: Sequence[Path],
    counts: SourceCounts,
    *,
    camera: str | None = None,
    skip: Skip | None = None,
) -> Iterator[Item]:
    """Whole images, one box each.

    Args:
        paths: image files.
        counts: added to.
        camera: goes into every row.
        skip: told of an image that cannot be decoded, which is then left out; ``None`` raises.

    Raises:
        InputError: an image that cannot be decoded, where ``skip`` is ``None``.
    """
    for path in paths:
        try:
            image = crops.read_image(path)
        except InputError as error:
            if skip is None:
                raise
            counts.unreadable_images += 1
            skip(error)
            continue
        counts.images += 1
        height, width = image.shape[:2]
        row = Row(str(path), None, None, None, 0, 0, width, height, None, camera)
        yield Item(image, np.array([[0, 0, width, height]], np.float64), [row])


def video_items(
    path: Path, detections: Detections, counts: SourceCounts, *, camera: str | None = None
) -> Iterator[Item]:
    """The frames of a video that have boxes, in order; decoding stops after the last of them.

    A video that ends early gives what can be decoded; the boxes of later frames are counted.

    Args:
        path: the video.
        detections: its boxes; their first frame, 1, is the video's first.
        counts: added to.
        camera: goes into every row.

    Raises:
        VideoError: the video cannot be opened.
    """
    counts.invalid_boxes += detections.skipped
    groups = dict(detections.groups())
    xyxy = detections.xyxy
    waiting = len(detections)
    with VideoReader(path) as video:
        for frame in video.frames(groups):
            counts.frames += 1
            where = groups[frame.number]
            rows = [
                Row(
                    source=str(path),
                    frame=frame.number,
                    timestamp_s=frame.timestamp_s,
                    track_id=None if track_id < 0 else track_id,
                    left=left,
                    top=top,
                    width=width,
                    height=height,
                    confidence=confidence,
                    camera=camera,
                )
                for track_id, (left, top, width, height), confidence in zip(
                    detections.track_ids[where].tolist(),
                    detections.ltwh[where].tolist(),
                    detections.confidences[where].tolist(),
                    strict=True,
                )
            ]
            waiting -= len(rows)
            yield Item(frame.image, xyxy[where], rows)
        counts.beyond_end += waiting
        if waiting and video.truncated:
            counts.truncated_videos.append(
                f"{path}: ends at frame {video.decoded} of {video.announced}"
            )
