"""What there is to embed: image files, folders of them, videos with their detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from sa_runtime import crops
from sa_runtime.detections.base import Detections
from sa_runtime.detections.table import read_detections
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.outputs.manifest import Position
from sa_runtime.outputs.parquet import Row
from sa_runtime.pipeline.stages import Item
from sa_runtime.sources.reader import VideoReader

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Image files; ``strict`` makes one that cannot be decoded an error, else it is left out."""

    paths: tuple[Path, ...]
    strict: bool

    def __len__(self) -> int:
        return len(self.paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    """A video and its boxes."""

    path: Path
    detections: Detections

    def __len__(self) -> int:
        return len(self.detections)


Source = Images | Video
"""What its length counts: the rows it can give at most."""


def find_sources(
    paths: Sequence[Path], detections: Sequence[Path] = (), *, strict: bool = False
) -> list[Source]:
    """What paths stand for: folders and image files, by suffix; everything else is a video.

    Every folder is searched, every detection file read and every video opened, so that what cannot
    work fails before a model runs.

    Args:
        paths: files and folders, in the order in which they are to be embedded.
        detections: one file for each video, in the same order.
        strict: make an image of a folder that cannot be decoded an error; one that is given by
            name always is.

    Raises:
        InputError: a missing path, a folder without images, or videos and detection files that do
            not pair up.
        DetectionError: a detection file that cannot be read.
        VideoError: a video that cannot be opened.
    """
    for path in paths:
        if not path.exists():
            raise MissingFileError(
                f"{path}: no such file or folder; expected images, a folder or a video", path=path
            )
    videos = [path for path in paths if _is_video(path)]
    if len(detections) < len(videos):
        raise InputError(
            f"{videos[len(detections)]}: a video without boxes; pass --detections FILE for it, "
            "lines of frame,id,left,top,width,height from a detector or tracker"
        )
    if len(detections) > len(videos):
        raise InputError(
            f"{len(videos)} videos and {len(detections)} --detections: "
            "expected one for each video, in the same order"
        )
    boxes = iter(detections)
    return [
        _video(path, next(boxes)) if _is_video(path) else _images(path, strict) for path in paths
    ]


def _is_video(path: Path) -> bool:
    return not path.is_dir() and not is_image(path)


def _video(path: Path, detections: Path) -> Video:
    VideoReader(path).close()
    return Video(path=path, detections=read_detections(detections))


def _images(path: Path, strict: bool) -> Images:
    if path.is_dir():
        return Images(paths=tuple(find_images(path)), strict=strict)
    return Images(paths=(path,), strict=True)


def require_images(sources: Sequence[Source], counts: SourceCounts) -> None:
    """Refuse a run over images of which none could be decoded.

    Raises:
        InputError: there are no videos either.
    """
    if not counts.images and not any(isinstance(source, Video) for source in sources):
        raise InputError(
            f"none of {counts.unreadable_images} images could be decoded; no file written"
        )


def source_items(
    sources: Sequence[Source],
    counts: SourceCounts,
    *,
    camera: str | None,
    skip: Skip,
    position: Position | None = None,
) -> Generator[Item, None, None]:
    """The items of every source, in order; see :func:`image_items` and :func:`video_items`.

    Args:
        sources: from :func:`find_sources`.
        counts: added to.
        camera: goes into every row.
        skip: told of images that are left out.
        position: where to start; it is moved on, and stands just behind the last item taken.
    """
    position = Position() if position is None else position
    while position.source < len(sources):
        source = sources[position.source]
        if isinstance(source, Video):
            start = (position.done, position.digest)
            for item in video_items(
                source.path, source.detections, counts, camera=camera, after=start
            ):
                position.done = item.rows[0].frame or 0
                yield item
        else:
            told = None if source.strict else skip
            for done, path in enumerate(source.paths[position.done :], position.done + 1):
                for item in image_items((path,), counts, camera=camera, skip=told):
                    position.done = done
                    yield item
        position.source, position.done, position.digest = position.source + 1, 0, ""


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
    path: Path,
    detections: Detections,
    counts: SourceCounts,
    *,
    camera: str | None = None,
    after: tuple[int, str] = (0, ""),
) -> Iterator[Item]:
    """The frames of a video that have boxes, in order; decoding stops after the last of them.

    A video that ends early gives what can be decoded; the boxes of later frames are counted.

    Args:
        path: the video.
        detections: its boxes; their first frame, 1, is the video's first.
        counts: added to.
        camera: goes into every row.
        after: leave out what an earlier run has taken: number and digest of its last frame.

    Raises:
        VideoError: the video cannot be opened.
    """
    taken, digest = after
    if not taken:
        counts.invalid_boxes += detections.skipped
    groups = {frame: where for frame, where in detections.groups() if frame > taken}
    xyxy = detections.xyxy
    waiting = int((detections.frames > taken).sum())
    with VideoReader(path) as video:
        if digest:
            video.skip_to(taken, digest)
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
