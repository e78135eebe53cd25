"""What passes between the stages: pictures with people in them, rows, how far a run has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sa_runtime.arrays import Boxes, Embeddings, Image


class Row(NamedTuple):
    """Where a vector comes from; the box is in pixels of its frame or image, as it was given.

    ``crop`` names the JPEG file of the person, where crops are written; ``quality`` says how well
    the box shows the person, where the best boxes of tracks were chosen.
    """

    source: str
    frame: int | None
    timestamp_s: float | None
    track_id: int | None
    left: float
    top: float
    width: float
    height: float
    confidence: float | None
    camera: str | None
    crop: str | None = None
    quality: float | None = None


class TrackRow(NamedTuple):
    """Where the vector of a track comes from: the row of its best crop, then all of its crops.

    ``crops`` says how many there are; the times are those of the first and the last of them.
    """

    source: str
    frame: int | None
    timestamp_s: float | None
    track_id: int | None
    left: float
    top: float
    width: float
    height: float
    confidence: float | None
    camera: str | None
    crop: str | None
    quality: float | None
    crops: int
    first_frame: int | None
    last_frame: int | None
    first_timestamp_s: float | None
    last_timestamp_s: float | None


class Item(NamedTuple):
    """One picture and the people in it.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        boxes: (N, 4) ``x0, y0, x1, y1`` in its pixels.
        rows: N, row i is box i.
        done: how far its source has come with it, a number that ascends from item to item; what
            :meth:`sa_runtime.sources.base.Source.items` takes to go on behind it.
    """

    image: Image
    boxes: Boxes
    rows: Sequence[Row]
    done: int = 0


Sink = Callable[[Sequence[Row], Embeddings], None]
"""Takes N rows and their (N, D) float32 vectors, in the order of the items."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come: just behind an image or a video frame.

    Attributes:
        source: index of the source, in the order given.
        done: :attr:`Item.done` of the last item taken from that source, 0 before the first.
        digest: hash of that item's picture, where the source needs it to find the place again.
    """

    source: int = 0
    done: int = 0
    digest: str = ""


@dataclasses.dataclass(kw_only=True)
class Counts:
    """What a run met in its sources.

    Attributes:
        images: image files read.
        frames: video frames decoded to pixels: those with boxes.
        other_files: files of folders that are no images.
        unreadable_images: image files left out because they cannot be decoded.
        invalid_boxes: boxes left out because they are not finite or have no size.
        filtered_boxes: boxes left out because of their size, confidence or class.
        beyond_end: boxes of frames after the last one that can be decoded.
        outside: boxes left out because nothing of them was inside their picture.
        clipped: boxes that were cut because they reach out of their picture.
        dropped_frames: frames of live sources left out, since newer ones had come.
        reconnects: how often live sources were opened again.
        truncated_videos: videos that end before the frame count they announce, while boxes were
            still waiting.
    """

    images: int = 0
    frames: int = 0
    other_files: int = 0
    unreadable_images: int = 0
    invalid_boxes: int = 0
    filtered_boxes: int = 0
    beyond_end: int = 0
    outside: int = 0
    clipped: int = 0
    dropped_frames: int = 0
    reconnects: int = 0
    truncated_videos: list[str] = dataclasses.field(default_factory=list)
