"""What a fleet of workers does, source by source: each fills a folder and tells what became of it.

Every source is filled by itself, as :mod:`sa_runtime.outputs.folder` does it, so that whatever
stops (a worker, a machine, the whole run) goes on from the source's own manifest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import DetectionError, InputError, SaDeployError, VideoError
from sa_runtime.image_files import MAX_PIXELS, has_image_suffix
from sa_runtime.items import Counts
from sa_runtime.outputs.base import PART_ROWS, StoredType
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.table import output_kind
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.ranges import FOLDER, EmbedTask, note_end, video_of
from sa_runtime.pipeline.result import what_was_met
from sa_runtime.sources.base import SourceOptions
from sa_runtime.sources.listing import listed
from sa_runtime.sources.range import RangeSource
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import find_sources
from sa_runtime.system.files import refuse_inputs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What all tasks share; see ``sa-deploy embed`` for the fields.

    Attributes:
        model: an artefact, readable on every machine.
        runtime: name of a runtime, or ``auto``.
        options: of the runner.
        split_frames: frames of the ranges that videos are cut into; ``None`` cuts none.
        noted: in the manifest of each folder, as what made it.
    """

    model: Path
    runtime: str = "auto"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    camera: str | None = None
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    boxes: BoxOptions = dataclasses.field(default_factory=BoxOptions)
    batch_size: int = 32
    dtype: StoredType = "float32"
    shard_rows: int = PART_ROWS
    split_frames: int | None = None
    noted: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What became of a task.

    Attributes:
        task: the task.
        rows: in its folder, those of earlier runs included.
        seconds: how long this run took for it.
        counts: what was met in it, by earlier runs too; ``None`` where it is not complete.
        doubt: why its boxes may mean something else; empty where they fit.
        error: why it is not complete; empty where it is.
    """

    task: EmbedTask
    rows: int = 0
    seconds: float = 0.0
    counts: Counts | None = None
    doubt: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "source": str(self.task.source),
            "out": str(self.task.out),
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            **({} if self.counts is None else what_was_met(self.counts)),
            "error": self.error,
        }


def tasks_of(
    paths: Sequence[str | Path],
    detections: Sequence[Path],
    out: Path,
    *,
    resume: bool,
    boxes: BoxOptions | None = None,
) -> list[EmbedTask]:
    """A task for each source, its folder named after it.

    Raises:
        InputError: what :func:`sa_runtime.sources.table.find_sources` refuses; image files by name;
            two sources of one name; or folders that an earlier run began while ``resume`` is false.
    """
    if output_kind(out) is not output_kind(""):
        raise InputError(f"{out}: one file; embedding on Ray takes a folder as `out`")
    paths = listed(paths)
    places = [Path(given) for given in paths]
    for path in places:
        if path.is_file() and has_image_suffix(path):
            raise InputError(f"{path}: one image cannot be shared out; pass the folder it is in")
    options = SourceOptions(boxes=boxes or BoxOptions())
    broken = _broken(paths, detections, options)
    videos = sum(not path.is_dir() for path in places)
    if len(detections) not in (1, videos) and videos:
        raise InputError(
            f"{videos} videos and {len(detections)} files of `detections`: on Ray expected one for "
            "each video, or one for all"
        )
    # One folder or file for all videos is searched by name, by the worker too.
    held = iter(detections if len(detections) == videos else list(detections) * videos)
    tasks: dict[str, EmbedTask] = {}
    for path in places:
        name = path.resolve().name
        if name in tasks:
            raise InputError(
                f"{path} and {tasks[name].source}: both would be written to {out / name}; "
                "embed them one after the other, each with an `out` of its own"
            )
        tasks[name] = EmbedTask(
            source=path.resolve(),
            detections=None if path.is_dir() else next(held).resolve(),
            out=(out / name).resolve(),
        )
        refuse_inputs(tasks[name].out, [*paths, *detections])
        if broken:  # and the next ones were not looked at
            _broken([path], [found] if (found := tasks[name].detections) else [], options)
    begun = [
        task.out
        for task in tasks.values()
        if (task.out / MANIFEST).exists() or (task.out / FOLDER).exists()
    ]
    if begun and not resume:
        raise InputError(
            f"{begun[0]}: holds rows of an earlier run; go on with it with `resume=True`, or "
            "choose another `out`"
        )
    return list(tasks.values())


def _broken(
    paths: Sequence[str | Path], detections: Sequence[Path], options: SourceOptions
) -> bool:
    """Whether one is damaged: its worker says so, and the others are embedded.

    Raises:
        InputError: what does not get better by embedding the others.
    """
    try:
        with quiet_opencv():
            find_sources(paths, detections, options)
    except (VideoError, DetectionError):
        return True
    return False


def embed_task(task: EmbedTask, runner: Any, settings: Settings) -> TaskResult:
    """Fill the folder of one source from where it stands.

    An error comes back with the result, so that the other sources go on. Images that are left out
    are counted in the folder's manifest.
    """
    try:
        source: Path | RangeSource = task.source
        if task.frames is not None:
            whole = video_of(task, camera=settings.camera, boxes=settings.boxes)
            source = RangeSource(
                whole, *task.frames, seek=task.seek, on_end=partial(note_end, task)
            )
        result = embed(
            source,
            runner,
            f"{task.out}/",
            detections=[task.detections] if task.detections and task.frames is None else [],
            camera=settings.camera,
            strict=settings.strict,
            max_pixels=settings.max_pixels,
            boxes=settings.boxes,
            batch_size=settings.batch_size,
            dtype=settings.dtype,
            shard_rows=settings.shard_rows,
            settings=settings.noted,
            resume=True,
        )
    except Exception as error:
        if not isinstance(error, SaDeployError):
            _log.exception("%s", task.source)
        return TaskResult(task=task, rows=rows_in(task.out), error=text_of(error))
    return TaskResult(
        task=task,
        rows=result.rows,
        seconds=result.timing.wall_s,
        counts=result.counts,
        doubt=result.doubt,
    )


def rows_in(folder: Path) -> int:
    """That are finished in the folder of a source."""
    try:
        return Manifest.read(folder).rows
    except InputError:
        return 0


def text_of(error: Exception) -> str:
    """What is said of a source that failed."""
    return str(error) if isinstance(error, SaDeployError) else f"{type(error).__name__}: {error}"
