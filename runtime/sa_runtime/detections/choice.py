"""Which boxes of a video are embedded: of some frames, and the best of each track."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.quality import qualities
from sa_runtime.errors import DetectionError, bad_value


def keeps(frame: int, options: BoxOptions, fps: float) -> bool:
    """Whether a frame is one of those that are used.

    Args:
        frame: its number, from 1.
        options: every how many frames, or how many a second.
        fps: of the video, 0 where it is not known.

    >>> [frame for frame in range(1, 12) if keeps(frame, BoxOptions(fps=3), 10)]
    [1, 5, 8, 11]
    """
    if options.every is not None and (frame - 1) % options.every:
        return False
    if options.fps is None or frame == 1:
        return True
    require_rate(options, fps)
    return math.floor((frame - 1) * options.fps / fps) > math.floor((frame - 2) * options.fps / fps)


def require_rate(options: BoxOptions, fps: float) -> None:
    """Refuse a rate where that of the video is not known.

    Raises:
        InputError: it is not.
    """
    if options.fps is not None and fps <= 0:
        raise bad_value(
            "fps", options.fps, "the video does not say its own rate; pass `every` instead"
        )


def chosen(
    detections: Detections, options: BoxOptions, *, fps: float, size: tuple[int, int] | None
) -> Detections:
    """The boxes that are used.

    Args:
        detections: all of a video.
        options: every how many frames, how many frames a second, how many boxes of a track.
        fps: of the video, 0 where it is not known.
        size: width and height of its frames, where they are known.

    Returns:
        The same where everything is used. Memory grows with what is chosen, not with what is read.

    Raises:
        InputError: a rate is asked for, and that of the video is not known.
        DetectionError: the best of each track are asked for, and no box has an id.
    """
    if options.every is None and options.fps is None and not options.rates:
        return detections
    require_rate(options, fps)
    kept: list[Detections] = []
    tracked = 0
    for block in detections.blocks():
        frames, places = np.unique(block.frames, return_inverse=True)
        used = np.array([keeps(frame, options, fps) for frame in frames.tolist()], np.bool_)
        part = block.chosen(used[places.reshape(-1)])
        if options.rates:
            part = dataclasses.replace(part, qualities=qualities(part, size))
        if options.per_track is not None:
            part = part.chosen(part.track_ids >= 0)
            tracked += len(part)
            if kept:
                part = joined([*kept, part])
            kept = [part.chosen(_best(part, options.per_track))]
        else:
            kept.append(part)
    if options.per_track is not None and len(detections) and not tracked:
        raise DetectionError(
            "the best boxes of each track are asked for, and no box has the id of a track; give "
            "boxes of a tracker, or leave `per_track` away"
        )
    found = joined(kept) if kept else detections.chosen(np.zeros(len(detections), np.bool_))
    return dataclasses.replace(found, filtered=detections.filtered + len(detections) - len(found))


def joined(parts: list[Detections]) -> Detections:
    """Boxes of blocks that follow each other, in one."""
    first = parts[0]
    rated = all(part.qualities is not None for part in parts)
    return dataclasses.replace(
        first,
        frames=np.concatenate([part.frames for part in parts]),
        track_ids=np.concatenate([part.track_ids for part in parts]),
        ltwh=np.concatenate([part.ltwh for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        qualities=np.concatenate([part.qualities for part in parts if part.qualities is not None])
        if rated
        else None,
    )


def _best(boxes: Detections, count: int) -> NDArray[np.bool_]:
    """Whether a box is one of the best of its track; of two as good the earlier one is."""
    assert boxes.qualities is not None
    order = np.lexsort((-boxes.qualities, boxes.track_ids))
    tracks = boxes.track_ids[order]
    starts = np.r_[True, tracks[1:] != tracks[:-1]]
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(tracks)), 0))
    best = np.zeros(len(tracks), np.bool_)
    best[order] = np.arange(len(tracks)) - begin < count
    return best
