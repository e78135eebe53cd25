"""Many videos and folders on many cores or machines: one Ray actor a model, one folder a source.

Every source is filled by itself, as :mod:`sa_runtime.outputs.folder` does it, so that whatever
stops (a worker, a machine, the whole run) goes on from the source's own manifest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError, SaDeployError, bad_value
from sa_runtime.image_files import MAX_PIXELS, has_image_suffix
from sa_runtime.items import Counts
from sa_runtime.outputs.base import PART_ROWS, StoredType
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.table import output_kind
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.ranges import (
    FOLDER,
    EmbedTask,
    join,
    note_end,
    split,
    unproven,
    video_of,
)
from sa_runtime.pipeline.result import what_was_met
from sa_runtime.runners.opening import open_runner
from sa_runtime.sources.base import SourceOptions
from sa_runtime.sources.listing import listed
from sa_runtime.sources.range import RangeSource
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import find_sources
from sa_runtime.system.extras import require
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
    with quiet_opencv():
        find_sources(paths, detections, SourceOptions(boxes=boxes or BoxOptions()))
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
    except SaDeployError as error:
        return TaskResult(task=task, rows=_rows_in(task.out), error=str(error))
    except Exception as error:
        _log.exception("%s", task.source)
        text = f"{type(error).__name__}: {error}"
        return TaskResult(task=task, rows=_rows_in(task.out), error=text)
    return TaskResult(
        task=task,
        rows=result.rows,
        seconds=result.timing.wall_s,
        counts=result.counts,
        doubt=result.doubt,
    )


def _rows_in(folder: Path) -> int:
    try:
        return Manifest.read(folder).rows
    except InputError:
        return 0


class _Worker:
    """A model that stays open from source to source; becomes a Ray actor."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner = open_runner(settings.model, settings.runtime, **settings.options)

    def embed(self, task: EmbedTask) -> TaskResult:
        return embed_task(task, self._runner, self._settings)


def embed_on_ray(
    tasks: Sequence[EmbedTask],
    settings: Settings,
    *,
    workers: int,
    cpus: float = 1.0,
    gpus: float = 0.0,
    address: str | None = None,
) -> Iterator[TaskResult]:
    """Embed sources on Ray and yield each as it is done, in no particular order.

    A worker that dies is started again, and its source goes on where it stood; the third time the
    source is given up, and another worker takes the next one.

    Args:
        tasks: from :func:`tasks_of`.
        settings: what they share.
        workers: sources embedded at a time, each by a process with a model of its own.
        cpus: cores of a worker, which Ray sets aside.
        gpus: number of GPUs of each worker, which may be a fraction.
        address: of a running cluster, ``auto`` for this machine's; a new one on this machine
            otherwise, which ends with the iteration.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: no such cluster, or too small a one.
    """
    ray = require("ray", extra="scale", purpose="embedding on several workers")
    try:
        ray.init(
            address=address or "local",  # never one that another program left
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except ConnectionError as exc:
        raise bad_value(
            "address", address, f"no cluster answers ({exc}); start one with `ray start`"
        ) from exc
    try:
        _require_resources(ray, workers, cpus, gpus)
        worker = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=2, max_task_retries=2)(
            _Worker
        )

        def start() -> Any:
            return worker.remote(settings)

        yield from _with_ranges(ray, tasks, settings, start, workers)
    finally:
        ray.shutdown()


def _with_ranges(
    ray: Any, tasks: Sequence[EmbedTask], settings: Settings, start: Callable[[], Any], workers: int
) -> Iterator[TaskResult]:
    """The results of whole sources, those of videos that were cut when all their ranges are in."""
    given: list[list[EmbedTask]] = [[task] for task in tasks]
    if settings.split_frames is not None:
        given = [split(task, settings.split_frames, boxes=settings.boxes) for task in tasks]
    of_video = {one[0].whole: one for one in given if one[0].frames is not None}
    found: dict[EmbedTask, list[TaskResult]] = {whole: [] for whole in of_video}
    waiting = [task for one in given for task in one]
    while waiting:
        again: list[EmbedTask] = []
        for result in share_out(ray, waiting, start, workers=min(workers, len(waiting))):
            whole = result.task.whole
            if whole not in of_video:
                yield result
                continue
            results = found[whole]
            results.append(result)
            if len(results) < len(of_video[whole]):
                continue
            wrong = [] if any(one.error for one in results) else unproven(of_video[whole])
            if wrong:
                _log.info("%s: %d ranges are decoded from the start", whole.source, len(wrong))
                found[whole] = [r for r in results if r.task.out not in {w.out for w in wrong}]
                redone = {task.out: task for task in wrong}
                of_video[whole] = [redone.get(t.out, t) for t in of_video[whole]]
                again += wrong
            else:
                yield _joined(whole, of_video[whole], results, settings)
        waiting = again


def _joined(
    whole: EmbedTask, parts: Sequence[EmbedTask], results: Sequence[TaskResult], settings: Settings
) -> TaskResult:
    seconds = sum(result.seconds for result in results)
    if failed := [result for result in results if result.error]:
        rows = sum(result.rows for result in results)
        return TaskResult(task=whole, rows=rows, seconds=seconds, error=failed[0].error)
    video = video_of(whole, camera=settings.camera, boxes=settings.boxes)
    manifest = join(parts, video.identity())
    doubt = next((result.doubt for result in results if result.doubt), "")
    counts = manifest.progress.counts
    return TaskResult(task=whole, rows=manifest.rows, seconds=seconds, counts=counts, doubt=doubt)


def share_out(
    ray: Any, tasks: Sequence[EmbedTask], start: Callable[[], Any], *, workers: int
) -> Iterator[TaskResult]:
    """Give every worker a task at a time; one that is lost costs its task and is replaced.

    Args:
        ray: the module, connected.
        tasks: what is to be done.
        start: starts an actor with a method ``embed``, which takes a task.
        workers: at a time.
    """
    waiting = deque(tasks)
    idle = [start() for _ in range(workers)]
    running: dict[Any, tuple[Any, EmbedTask]] = {}
    while waiting or running:
        while waiting and idle:
            worker, task = idle.pop(), waiting.popleft()
            running[worker.embed.remote(task)] = (worker, task)
        (ready,), _ = ray.wait(list(running), num_returns=1)
        worker, task = running.pop(ready)
        try:
            done: TaskResult = ray.get(ready)
        except ray.exceptions.RayError as exc:
            cause = str(exc).strip().partition("\n")[0]
            done = TaskResult(
                task=task, rows=_rows_in(task.out), error=f"its worker was lost: {cause}"
            )
            worker = start() if waiting else None
        if worker is not None and waiting:
            idle.append(worker)
        elif worker is not None:
            ray.kill(worker)  # one whose machine was lost may wait for these cores
        yield done


def _require_resources(ray: Any, workers: int, cpus: float, gpus: float) -> None:
    """Without them Ray would wait for ever."""
    held = ray.cluster_resources()
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        if each * workers > held.get(name, 0):
            raise InputError(
                f"{workers} Ray workers of {each:g} {name} each: the cluster has "
                f"{held.get(name, 0):g}; pass fewer `workers`"
            )
