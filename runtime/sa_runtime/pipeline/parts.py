"""From items to an output, part by part, each of which is whole or absent."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence

from sa_runtime.errors import InputError
from sa_runtime.items import Counts, Item
from sa_runtime.outputs.base import PART_SECONDS, Output, Progress
from sa_runtime.pipeline.report import Report
from sa_runtime.pipeline.stages import PipelineResult, run_pipeline
from sa_runtime.runners.base import Runner
from sa_runtime.sources.base import ItemStream


def embed_parts(
    output: Output,
    items: ItemStream,
    runner: Runner,
    report: Report,
    changes: Sequence[Callable[[Item], Item]],
    *,
    batch_size: int,
    max_delay_ms: float | None,
    allow_empty: bool,
) -> PipelineResult:
    """Embed what is left, part by part; each is a pipeline of its own.

    Args:
        output: gets the parts, and keeps how far the run has come.
        items: what is left of the sources.
        runner: the open model.
        report: is told of every batch.
        changes: made to each item before it is cropped, in order.
        batch_size: largest batch given to the runtime.
        max_delay_ms: see :func:`sa_runtime.pipeline.stages.run_pipeline`.
        allow_empty: let images of which none can be decoded be no error.

    Returns:
        The time of every stage, over all parts.

    Raises:
        InputError: no image could be decoded, and there were no frames of videos.
    """
    total = PipelineResult()
    while not output.progress.complete:
        with output.part() as writer:
            result = run_pipeline(
                _Part(items, output.part_rows, changes),
                runner,
                report.beside(writer.write),
                batch_size=batch_size,
                max_delay_ms=max_delay_ms,
            )
            if items.ended and not allow_empty:
                _require_pictures(items.counts)
        total += result
        items.counts.outside += result.outside
        items.counts.clipped += result.clipped
        output.commit(
            Progress(
                rows=output.progress.rows + result.rows,
                position=items.position,
                counts=copy.deepcopy(items.counts),
                complete=items.ended,
            )
        )
    return total


class _Part:
    """Items up to a number of boxes or seconds; not a generator, so that the items stay open."""

    def __init__(
        self, items: ItemStream, rows: int | None, changes: Sequence[Callable[[Item], Item]]
    ) -> None:
        self._items = items
        self._changes = changes
        self._left = rows
        self._stop = None if rows is None else time.monotonic() + PART_SECONDS
        self._begun = False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._begun and self._is_full():
            raise StopIteration
        item = next(self._items)
        for change in self._changes:
            item = change(item)
        self._begun = True
        if self._left is not None:
            self._left -= len(item.rows)
        return item

    def _is_full(self) -> bool:
        rows_full = self._left is not None and self._left <= 0
        return rows_full or (self._stop is not None and time.monotonic() >= self._stop)


def _require_pictures(counts: Counts) -> None:
    """Refuse a run over images of which none could be decoded.

    Raises:
        InputError: there were no frames of videos either.
    """
    if counts.unreadable_images and not (counts.images or counts.frames):
        raise InputError(
            f"none of {counts.unreadable_images} images could be decoded; no rows were written"
        )
