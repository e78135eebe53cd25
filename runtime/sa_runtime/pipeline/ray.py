"""Many videos and folders on many cores or machines: one Ray actor a model, one folder a source."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError, SaDeployError
from sa_runtime.pipeline.ranges import EmbedTask, join, split, unproven, video_of
from sa_runtime.pipeline.tasks import Settings, TaskResult, embed_task, rows_in, text_of
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.ray_cluster import connected

_log = logging.getLogger(__name__)


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
    with connected(address, purpose="embedding on several workers") as ray:
        _require_resources(ray, workers, cpus, gpus)
        worker = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=2, max_task_retries=2)(
            _Worker
        )

        def start() -> Any:
            return worker.remote(settings)

        yield from _with_ranges(ray, tasks, settings, start, workers)


def _with_ranges(
    ray: Any, tasks: Sequence[EmbedTask], settings: Settings, start: Callable[[], Any], workers: int
) -> Iterator[TaskResult]:
    """The results of whole sources, those of videos that were cut when all their ranges are in."""
    given: list[list[EmbedTask]] = [[task] for task in tasks]
    if settings.split_frames is not None:
        given = [_split(task, settings.split_frames, settings.boxes) for task in tasks]
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
            try:
                wrong = [] if any(one.error for one in results) else unproven(of_video[whole])
                if not wrong:
                    yield _joined(whole, of_video[whole], results, settings)
                    continue
            except (SaDeployError, OSError) as error:
                yield dataclasses.replace(_failed(whole, results), error=text_of(error))
                continue
            _log.info("%s: %d ranges are decoded from the start", whole.source, len(wrong))
            found[whole] = [r for r in results if r.task.out not in {w.out for w in wrong}]
            redone = {task.out: task for task in wrong}
            of_video[whole] = [redone.get(t.out, t) for t in of_video[whole]]
            again += wrong
        waiting = again


def _joined(
    whole: EmbedTask, parts: Sequence[EmbedTask], results: Sequence[TaskResult], settings: Settings
) -> TaskResult:
    if any(result.error for result in results):
        return _failed(whole, results)
    seconds = sum(result.seconds for result in results)
    video = video_of(whole, camera=settings.camera, boxes=settings.boxes)
    manifest = join(parts, video.identity())
    doubt = next((result.doubt for result in results if result.doubt), "")
    counts = manifest.progress.counts
    return TaskResult(task=whole, rows=manifest.rows, seconds=seconds, counts=counts, doubt=doubt)


def _failed(whole: EmbedTask, results: Sequence[TaskResult]) -> TaskResult:
    """A video of which a range is missing, or whose ranges do not come together."""
    return TaskResult(
        task=whole,
        rows=sum(result.rows for result in results),
        seconds=sum(result.seconds for result in results),
        error=next((result.error for result in results if result.error), ""),
    )


def _split(task: EmbedTask, frames: int, boxes: BoxOptions) -> list[EmbedTask]:
    try:
        return split(task, frames, boxes=boxes)
    except (SaDeployError, OSError):
        return [task]  # its worker meets the same, and says so


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
                task=task, rows=rows_in(task.out), error=f"its worker was lost: {cause}"
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
