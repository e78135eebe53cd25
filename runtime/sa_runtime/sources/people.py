"""The boxes of one picture, made into crops and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Image
from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.items import Counts, Item, Row


class FrameBoxes(NamedTuple):
    """The boxes of one frame.

    Attributes:
        frame: its number, from 1.
        track_ids: (N,) int64; -1 for none.
        ltwh: (N, 4) float64, in pixels or in parts of the frame.
        confidences: (N,) float64.
        qualities: (N,) float64, where they are known.
    """

    frame: int
    track_ids: NDArray[np.int64]
    ltwh: NDArray[np.float64]
    confidences: NDArray[np.float64]
    qualities: NDArray[np.float64] | None = None


def boxes_by_frame(detections: Detections, after: int = 0) -> Iterator[FrameBoxes]:
    """The boxes of every frame behind one, frame by frame."""
    for block in detections.blocks(after):
        for frame, where in block.groups():
            yield FrameBoxes(
                frame,
                block.track_ids[where],
                block.ltwh[where],
                block.confidences[where],
                None if block.qualities is None else block.qualities[where],
            )


def item_of(
    image: Image,
    boxes: FrameBoxes,
    options: BoxOptions,
    counts: Counts,
    *,
    source: str,
    timestamp_s: float | None,
    camera: str | None,
    normalized: bool = False,
    done: int | None = None,
) -> Item:
    """A picture with the people in it.

    Args:
        image: (H, W, 3) uint8 BGR.
        boxes: of the picture.
        options: least size of a box, and how far it is moved out.
        counts: gets the boxes that are too small.
        source: goes into every row, as do the next two.
        timestamp_s: seconds since the start, if that is known.
        camera: its name, if it has one.
        normalized: whether the boxes are parts of the picture.
        done: how far the source has come with it; the number of the frame by default.
    """
    height, width = image.shape[:2]
    ltwh = boxes.ltwh * np.array([width, height, width, height]) if normalized else boxes.ltwh
    kept = (ltwh[:, 2] >= options.min_size[0]) & (ltwh[:, 3] >= options.min_size[1])
    counts.filtered_boxes += int(len(kept) - kept.sum())
    ltwh = ltwh[kept]
    marks = boxes.qualities[kept].tolist() if boxes.qualities is not None else [None] * kept.sum()
    rows = [
        Row(
            source=source,
            frame=boxes.frame,
            timestamp_s=timestamp_s,
            track_id=None if track_id < 0 else track_id,
            left=left,
            top=top,
            width=box_width,
            height=box_height,
            confidence=confidence,
            camera=camera,
            quality=mark,
        )
        for track_id, (left, top, box_width, box_height), confidence, mark in zip(
            boxes.track_ids[kept].tolist(),
            ltwh.tolist(),
            boxes.confidences[kept].tolist(),
            marks,
            strict=True,
        )
    ]
    xyxy = np.concatenate([ltwh[:, :2], ltwh[:, :2] + ltwh[:, 2:]], axis=1)
    if options.pad:
        xyxy = padded(xyxy, options.pad, height, width)
    return Item(image, xyxy, rows, boxes.frame if done is None else done)


def padded(xyxy: NDArray[np.float64], part: float, height: int, width: int) -> NDArray[np.float64]:
    """Boxes whose sides are moved out, up to the edge of their picture.

    A side that lies outside already stays where it is.

    Args:
        xyxy: (N, 4).
        part: of a box's width and height, by which each side is moved.
        height: of the picture.
        width: of the picture.

    >>> padded(np.array([[10.0, 10, 30, 50], [-5, 0, 95, 40]]), 0.1, 100, 100).tolist()
    [[8.0, 6.0, 32.0, 54.0], [-5.0, 0.0, 100.0, 44.0]]
    """
    low, high = xyxy[:, :2], xyxy[:, 2:]
    out = (high - low) * part
    edge = np.array([width, height], np.float64)
    low = np.minimum(low, np.maximum(low - out, 0))
    high = np.maximum(high, np.minimum(high + out, edge))
    return np.concatenate([low, high], axis=1)
