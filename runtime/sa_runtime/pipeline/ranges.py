"""A long video shared out by ranges of its frames, and the ranges' rows put together again.

Each range is a task with a folder of its own below ``.ranges`` in the folder of its video, filled
and gone on with as that of any source. When all are there, and the frames at which they meet prove
that each was where it should be (:mod:`sa_runtime.sources.range`), their files become the video's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError
from sa_runtime.items import Counts, Position
from sa_runtime.outputs.manifest import MANIFEST, Manifest, Shard
from sa_runtime.sources.base import SourceOptions
from sa_runtime.sources.range import ranges
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import find_sources
from sa_runtime.sources.video import VideoSource
from sa_runtime.system.files import atomic_path

FOLDER = ".ranges"
_PROOF = "_range.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedTask:
    """A source and the folder that its vectors go to; paths are those of the worker's machine.

    Attributes:
        source: a video or a folder of images.
        detections: of a video.
        out: folder, made where it is missing.
        frames: first frame and the one behind the last, 0 for all that follow; ``None`` for all.
        seek: whether the container is asked for the first frame.
    """

    source: Path
    detections: Path | None
    out: Path
    frames: tuple[int, int] | None = None
    seek: bool = True

    @property
    def whole(self) -> EmbedTask:
        """The task that this one is a range of; itself where it is none."""
        if self.frames is None:
            return self
        return dataclasses.replace(self, out=self.out.parents[1], frames=None, seek=True)


def video_of(task: EmbedTask, *, camera: str | None, boxes: BoxOptions) -> VideoSource:
    """The video of a task.

    Raises:
        InputError: it is none.
    """
    options = SourceOptions(camera=camera, boxes=boxes)
    with quiet_opencv():
        (found,) = find_sources(
            [task.source], [task.detections] if task.detections else [], options
        )
    if not isinstance(found, VideoSource):
        raise InputError(f"{task.source}: no video; only videos are cut into ranges")
    return found


def split(task: EmbedTask, frames: int, *, boxes: BoxOptions) -> list[EmbedTask]:
    """The ranges of a task; itself where it is no video, or done, or too short to be cut."""
    if task.source.is_dir() or (task.out / MANIFEST).exists():
        return [task]
    found = ranges(video_of(task, camera=None, boxes=boxes), frames)
    if len(found) == 1:
        return [task]
    folder = task.out / FOLDER
    return [
        dataclasses.replace(task, out=folder / f"{index:05d}", frames=one)
        for index, one in enumerate(found)
    ]


def note_end(task: EmbedTask, which: str, digest: str) -> None:
    """Keep the digest of a range's ``first`` or ``stop``, in the folder that it fills."""
    with atomic_path(task.out / _PROOF) as temporary:
        temporary.write_text(json.dumps({**_proof(task), which: digest}))


def unproven(tasks: Sequence[EmbedTask]) -> list[EmbedTask]:
    """Ranges that do not begin where the one before ends, to be embedded again without seeking.

    Their folders are emptied. A range is right where its first frame is the one that the range
    before, itself right, comes to next.
    """
    again = []
    for before, task in pairwise(tasks):
        meets = _proof(before).get("stop", "")
        if task.seek and (not meets or meets != _proof(task).get("first", "")):
            shutil.rmtree(task.out)
            again.append(dataclasses.replace(task, seek=False))
    return again


def join(tasks: Sequence[EmbedTask], identity: dict[str, Any]) -> Manifest:
    """Make the files of complete ranges those of their video; a killed one is called again.

    Args:
        tasks: the ranges, in order.
        identity: of the whole video.
    """
    target = tasks[0].whole.out
    parts = [Manifest.read(task.out) for task in tasks]
    shards: list[Shard] = []
    for task, part in zip(tasks, parts, strict=True):
        for shard in part.shards:
            if not shard.rows and (shards or any(p.rows for p in parts)):
                continue
            name = f"part-{len(shards):05d}.parquet"
            _place(task.out / shard.file, target / name)
            shards.append(dataclasses.replace(shard, file=name))
    first = parts[0]
    manifest = Manifest(
        plan={**first.plan, "sources": [identity]},
        shards=shards,
        position=Position(source=1),
        counts=dataclasses.asdict(_sum([Counts(**part.counts) for part in parts])),
        complete=True,
        settings=first.settings,
    )
    manifest.write(target)
    shutil.rmtree(target / FOLDER)
    return manifest


def _place(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _sum(found: Sequence[Counts]) -> Counts:
    numbers: Counter[str] = Counter()
    truncated: list[str] = []
    for counts in found:
        fields = dataclasses.asdict(counts)
        truncated += [text for text in fields.pop("truncated_videos") if text not in truncated]
        numbers.update(fields)
    return Counts(**numbers, truncated_videos=truncated)


def _proof(task: EmbedTask) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((task.out / _PROOF).read_text())
    except (OSError, ValueError):
        return {}
    return found
