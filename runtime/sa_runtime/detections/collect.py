"""From what the readers yield to the boxes of each video, however many there are.

A file of millions of boxes is not held: beyond :data:`HELD_BOXES` they go to a temporary file,
where ``TMPDIR`` says, in runs that are sorted by video and frame, and the runs are merged. The file
has no name, so that it is gone with the process whatever ends it.
"""

from __future__ import annotations

import bisect
import dataclasses
import mmap
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import DetectionError

HELD_BOXES = 2**21
"""Boxes held in memory, of 60 bytes each, before a temporary file takes them."""
RUN_BOXES = 2**19
"""Boxes that are sorted and merged at a time."""

_RECORD = np.dtype(
    [
        ("video", np.int32),
        ("frame", np.int64),
        ("id", np.int64),
        ("box", np.float64, (4,)),
        ("confidence", np.float64),
    ]
)
Records = NDArray[Any]
"""(N,) of one box each: video, frame, id, box as left, top, width, height, confidence."""


class Labels(NamedTuple):
    """A column of names.

    Attributes:
        codes: (N,) integers, places in ``names``.
        names: each with what else it is called, as class names are by their numbers.
    """

    codes: NDArray[np.integer]
    names: Sequence[tuple[str, ...]]


class Chunk(NamedTuple):
    """Some boxes of a file, in its order.

    Attributes:
        frames: (N,) int64, from 1.
        track_ids: (N,) int64; -1 for none.
        ltwh: (N, 4) float64.
        confidences: (N,) float64.
        classes: where the file has them.
        videos: where the file names them.
    """

    frames: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    ltwh: NDArray[np.float64]
    confidences: NDArray[np.float64]
    classes: Labels | None = None
    videos: Labels | None = None


@dataclasses.dataclass(kw_only=True)
class _LeftOut:
    skipped: int = 0
    filtered: int = 0


class Collector:
    """Takes chunks; gives the boxes of each video.

    Args:
        options: which boxes are used.
        name: of what is read, for messages.
    """

    def __init__(self, options: BoxOptions, name: str) -> None:
        self._options = options
        self._name = name
        self._wanted = {label.lower() for label in options.classes}
        self._videos: dict[str, int] = {}
        self._left_out: dict[int, _LeftOut] = {}
        self._pending: list[Records] = []
        self._count = 0
        self._runs = _Runs()

    def add(self, chunk: Chunk) -> None:
        """Take some boxes.

        Raises:
            DetectionError: classes are asked for, and the file has none.
        """
        videos = self._video_codes(chunk)
        usable = np.isfinite(chunk.ltwh).all(axis=1)
        usable &= (chunk.ltwh[:, 2] > 0) & (chunk.ltwh[:, 3] > 0)
        wanted = self._chosen(chunk)
        self._note(videos, ~usable, "skipped")
        self._note(videos, usable & ~wanted, "filtered")
        kept = usable & wanted
        records = np.empty(int(kept.sum()), _RECORD)
        records["video"] = videos[kept]
        records["frame"] = chunk.frames[kept]
        records["id"] = chunk.track_ids[kept]
        records["box"] = chunk.ltwh[kept]
        records["confidence"] = chunk.confidences[kept]
        self._pending.append(records)
        self._count += len(records)
        if self._count >= (RUN_BOXES if self._runs else HELD_BOXES):
            self._spill()

    def finish(self, image_names: Mapping[str, Mapping[int, str]] | None = None) -> BoxesByVideo:
        """The boxes of each video, of none that a file does not name under the empty name.

        Args:
            image_names: video -> number of a frame -> its file.
        """
        if self._runs:
            self._spill()
            records, mapping = self._runs.merged()
        else:
            records, mapping = _sorted(self._pending), None
        columns = records["video"]
        found = {}
        for name, code in self._videos.items() if self._videos else [("", 0)]:
            part = records[bisect.bisect_left(columns, code) : bisect.bisect_right(columns, code)]
            held = np.ascontiguousarray if mapping is None else np.asarray
            left_out = self._left_out.get(code, _LeftOut())
            found[name] = Detections(
                frames=held(part["frame"]),
                track_ids=held(part["id"]),
                ltwh=held(part["box"]),
                confidences=held(part["confidence"]),
                skipped=left_out.skipped,
                filtered=left_out.filtered,
                normalized=self._options.normalized,
                image_names=(image_names or {}).get(name),
                mapping=mapping,
            )
        return found

    def _video_codes(self, chunk: Chunk) -> NDArray[np.int32]:
        if chunk.videos is None:
            return np.zeros(len(chunk.frames), np.int32)
        codes = [
            self._videos.setdefault(name, len(self._videos)) for name, *_ in chunk.videos.names
        ]
        return np.asarray(np.array(codes, np.int32)[chunk.videos.codes])

    def _chosen(self, chunk: Chunk) -> NDArray[np.bool_]:
        chosen = np.ones(len(chunk.frames), np.bool_)
        if self._options.min_confidence is not None:
            chosen &= chunk.confidences >= self._options.min_confidence
        if self._wanted:
            if chunk.classes is None:
                raise DetectionError(
                    f"{self._name}: its boxes have no class; leave `classes` away, or name the "
                    "column with `columns`"
                )
            fits = [
                any(name.lower() in self._wanted for name in names) for names in chunk.classes.names
            ]
            chosen &= np.array([*fits, False], np.bool_)[chunk.classes.codes]
        return chosen

    def _note(self, videos: NDArray[np.int32], which: NDArray[np.bool_], field: str) -> None:
        if which.any():
            for code, count in zip(*np.unique(videos[which], return_counts=True), strict=True):
                entry = self._left_out.setdefault(int(code), _LeftOut())
                setattr(entry, field, getattr(entry, field) + int(count))

    def _spill(self) -> None:
        records = _sorted(self._pending)
        self._pending, self._count = [], 0
        for start in range(0, len(records), RUN_BOXES):
            self._runs.append(records[start : start + RUN_BOXES])


BoxesByVideo = dict[str, Detections]
"""The boxes of a file by the video that it names; by the empty name where it names none."""


def _sorted(parts: Sequence[Records]) -> Records:
    """Records by video and frame; those of one frame stay in order."""
    records = np.concatenate([np.empty(0, _RECORD), *parts])
    videos, frames = records["video"], records["frame"]
    if (np.diff(videos) >= 0).all() and not ((np.diff(frames) < 0) & (np.diff(videos) == 0)).any():
        return records
    return records[np.lexsort((frames, videos))]


class _Run(NamedTuple):
    """Where a sorted run stands in the file, video by video."""

    slices: dict[int, tuple[int, int]]
    first: tuple[int, int]
    last: tuple[int, int]


class _Runs:
    """Sorted runs in a temporary file; true where there are any."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._runs: list[_Run] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def append(self, records: Records) -> None:
        if self._file is None:
            self._file = _temporary()
        codes, starts = np.unique(records["video"], return_index=True)
        borders = [*(starts + self._size).tolist(), self._size + len(records)]
        slices = dict(zip(codes.tolist(), pairwise(borders), strict=True))
        first, last = ((int(one["video"]), int(one["frame"])) for one in records[[0, -1]])
        self._runs.append(_Run(slices, first, last))
        self._file.write(records.tobytes())
        self._size += len(records)

    def merged(self) -> tuple[Records, mmap.mmap]:
        """All records by video and frame, and the mapping of the file that holds them."""
        assert self._file is not None
        mapping, records = _mapped(self._file)
        if all(before.last <= after.first for before, after in pairwise(self._runs)):
            return records, mapping
        target = _temporary()
        for video in sorted({code for run in self._runs for code in run.slices}):
            slices = [run.slices[video] for run in self._runs if video in run.slices]
            for part in _merge(records, slices):
                target.write(part.tobytes())
                _release(mapping)
        del records
        mapping, records = _mapped(target)
        return records, mapping


def _merge(records: Records, slices: Sequence[tuple[int, int]]) -> Iterator[Records]:
    """The records of one video in order of their frames, some at a time."""
    frames = records["frame"]
    open_runs = list(slices)
    while open_runs:
        share = max(1, RUN_BOXES // len(open_runs))
        until = min(int(frames[min(start + share, end) - 1]) for start, end in open_runs)
        parts, rest = [], []
        for start, end in open_runs:
            stop = bisect.bisect_right(frames, until, start, end)
            parts.append(records[start:stop])
            if stop < end:
                rest.append((stop, end))
        joined = np.concatenate(parts)
        yield joined[np.argsort(joined["frame"], kind="stable")]
        open_runs = rest


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="sa-deploy-boxes-")


def _mapped(file: IO[bytes]) -> tuple[mmap.mmap, Records]:
    file.flush()
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.close()
    return mapping, np.frombuffer(mapping, _RECORD)


def _release(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
