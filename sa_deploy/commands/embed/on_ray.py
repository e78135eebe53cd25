"""``sa-deploy embed --ray-workers``: many sources at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sa_deploy.output import note, print_json, print_table, progress
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import IncompleteError, bad_value
from sa_runtime.pipeline.ranges import EmbedTask
from sa_runtime.pipeline.ray import embed_on_ray
from sa_runtime.pipeline.result import what_was_met
from sa_runtime.pipeline.tasks import Settings, TaskResult, tasks_of
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.environment import cores
from sa_runtime.system.remote import address_of


def embed_as_given(
    given: Mapping[str, Any],
    options: dict[str, Any],
    boxes: BoxOptions,
    noted: dict[str, Any],
) -> None:
    """Embed what the command was given, source by source.

    Args:
        given: the command's parameters by name.
        options: of the runner.
        boxes: how detection files are read.
        noted: goes into the manifests.

    Raises:
        InputError: what cannot be shared out.
        IncompleteError: some sources are not complete; the others are.
    """
    others = ("partition", "crops", "tracks", "camera_from", "detector", "shard", "server", "watch")
    places = [*given["sources"], *given["out"]]
    workers, outs = given["ray_workers"], given["out"]
    require_plain(workers, places, outs, {name: given[name] for name in others})
    shared = ["model", "runtime", "camera", "strict", "max_pixels", "batch_size", "dtype"]
    shared += ["shard_rows", "split_frames"]
    settings = Settings(
        **{name: given[name] for name in shared}, options=options, boxes=boxes, noted=noted
    )
    tasks = tasks_of(
        given["sources"],
        given["detections"] or [],
        Path(outs[0]),
        resume=given["resume"],
        boxes=boxes,
    )
    address, as_json = given["ray_address"], given["json_output"]
    embed_on_workers(tasks, settings, workers, address, json_output=as_json)


def require_plain(
    workers: int, places: Sequence[str], outs: Sequence[str], options: Mapping[str, object]
) -> None:
    """Refuse what does not go with workers.

    Raises:
        InputError: an address of a store among the places, several outputs, or one of the options.
    """
    for place in filter(None, map(address_of, places)):
        raise bad_value("ray_workers", workers, f"{place}: stores are not shared out; use `shard`")
    for name in [name for name, value in options.items() if value]:
        raise bad_value("ray_workers", workers, f"does not go with `{name}`; leave one out")
    if len(outs) != 1:
        raise bad_value("ray_workers", workers, "every source gets a folder below one `out`")


def embed_on_workers(
    tasks: Sequence[EmbedTask],
    settings: Settings,
    workers: int,
    address: str | None,
    *,
    json_output: bool,
) -> None:
    """Embed every task on Ray and say what became of each.

    Raises:
        IncompleteError: some sources are not complete; the others are.
    """
    if settings.split_frames is None:
        workers = min(workers, len(tasks))
    share = max(cores() // workers, 1)
    on_gpu = str(settings.options.get("device", "")).startswith(("cuda", "tensorrt"))
    if not on_gpu and settings.model.suffix != ".engine":
        options = {"threads": share, **settings.options}
        settings = dataclasses.replace(settings, options=options)
        # Where auto has to measure, it does so once and alone; the workers find what it remembered.
        with open_runner(settings.model, settings.runtime, **settings.options) as runner:
            if runner.reason:
                note(f"auto took {runner.reason}")
    done: list[TaskResult] = []
    with progress(f"{workers} workers, sources", len(tasks)) as advance:
        for result in embed_on_ray(
            tasks, settings, workers=workers, cpus=share, gpus=float(on_gpu), address=address
        ):
            done.append(result)
            advance()
            if result.error:
                source = str(result.task.source)
                which = "" if result.error.startswith(source) else f"{source}: "
                note(f"not complete: {which}{result.error}")
            if result.doubt:
                note(f"warning: {result.task.source}: {result.doubt}")
    done.sort(key=lambda result: tasks.index(result.task))
    rows = sum(result.rows for result in done)
    if json_output:
        sources = [result.to_dict() for result in done]
        print_json({"workers": workers, "rows": rows, "sources": sources})
    else:
        print_table(
            f"{rows} rows by {workers} workers",
            ("source", "rows", "seconds", "left out", "clipped", "other files", "complete"),
            [_line(result) for result in done],
        )
    if failed := [result for result in done if result.error]:
        raise IncompleteError(
            f"{len(failed)} of {len(done)} sources are not complete, {failed[0].task.source.name} "
            "for one; mend what is said of them and call again with --resume"
        )


def _line(result: TaskResult) -> tuple[object, ...]:
    """Name, rows, seconds, what was left out, boxes clipped, files of other kinds, completeness."""
    met: tuple[object, ...] = ("", "", "")
    if (counts := result.counts) is not None:
        left_out = sum(what_was_met(counts)["skipped"].values())
        met = (left_out, counts.clipped, counts.other_files)
    complete = "no" if result.error else "yes"
    return (result.task.source.name, result.rows, f"{result.seconds:.1f}", *met, complete)
