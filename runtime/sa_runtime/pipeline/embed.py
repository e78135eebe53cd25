"""The main job in one call: pictures with people in them to rows of vectors."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.artefact.formats import files_of
from sa_runtime.detections.base import Detections
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.image_files import MAX_PIXELS
from sa_runtime.items import Counts, Item, Row, Sink
from sa_runtime.outputs.base import PART_ROWS, PART_SECONDS, Output, Progress, StoredType
from sa_runtime.outputs.manifest import plan_of
from sa_runtime.outputs.table import output_kind
from sa_runtime.pipeline.stages import PipelineResult, run_pipeline
from sa_runtime.runners.base import Runner
from sa_runtime.runners.table import open_runner
from sa_runtime.sources.base import ItemStream, OnSkip, Source, SourceOptions, ignore
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import Boxes, Location, find_sources
from sa_runtime.system.files import refuse_inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedProgress:
    """How far a run is.

    Attributes:
        rows: embedded so far, those of earlier runs included.
        rows_at_most: the largest number of rows that the sources can give.
        runner: the open model.
    """

    rows: int
    rows_at_most: int
    runner: Runner


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """What a run has made.

    Attributes:
        model: the artefact.
        runtime: name of what ran it.
        contract: what its vectors mean.
        dtype: of the stored vectors.
        out: file or folder.
        files: those that hold the rows.
        rows: number of rows stored, those of earlier runs included.
        resumed_rows: number of rows of earlier runs.
        counts: what was met in the sources, by earlier runs too.
        timing: of this run, stage by stage.
    """

    model: str
    runtime: str
    contract: Contract
    dtype: StoredType
    out: Path
    files: tuple[Path, ...]
    rows: int
    resumed_rows: int
    counts: Counts
    timing: PipelineResult

    @property
    def rows_per_s(self) -> float:
        """Rows of this run in a second of it."""
        return self.timing.rows / self.timing.wall_s if self.timing.wall_s else 0.0

    @property
    def doubt(self) -> str:
        """Why the boxes may mean something else than they were read as; empty where they fit."""
        counts = self.counts
        # Of the rows, those of whole images fit.
        boxes = self.rows - counts.images + counts.outside
        amiss = counts.clipped + counts.outside
        if not amiss or 2 * amiss < boxes:
            return ""
        return (
            f"{amiss} of {boxes} boxes reach out of their frame and lost area: are they "
            "x1,y1,x2,y2? A first line of names, frame,id,x1,y1,x2,y2,conf, says so; or do they "
            "belong to a video of another size?"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        counts, timing = self.counts, self.timing
        return {
            "model": self.model,
            "runtime": self.runtime,
            "embedding": self.contract.output.embedding,
            "space": self.contract.space,
            "dim": self.contract.output.dim,
            "dtype": self.dtype,
            "out": str(self.out),
            "size_bytes": sum(file.stat().st_size for file in self.files),
            "files": len(self.files),
            "rows": self.rows,
            "resumed_rows": self.resumed_rows,
            "images": counts.images,
            "frames": counts.frames,
            "seconds": round(timing.wall_s, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "busy_s": {
                "decode": round(timing.decode_s, 3),
                "crop": round(timing.crop_s, 3),
                "inference": round(timing.inference_s, 3),
                "write": round(timing.write_s, 3),
            },
            "skipped": {
                "boxes_outside": counts.outside,
                "boxes_without_size": counts.invalid_boxes,
                "boxes_beyond_end": counts.beyond_end,
                "unreadable_images": counts.unreadable_images,
            },
            "boxes_clipped": counts.clipped,
            "other_files": counts.other_files,
            "truncated_videos": counts.truncated_videos,
        }


def embed(
    sources: Location | Source | Sequence[Location | Source],
    model: Location | Embedder | Runner,
    out: Location,
    *,
    detections: Boxes | Sequence[Boxes] = (),
    camera: str | None = None,
    runtime: str = "auto",
    batch_size: int = 32,
    dtype: StoredType = "float32",
    max_delay_ms: float | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    resume: bool = False,
    shard_rows: int = PART_ROWS,
    on_progress: Callable[[EmbedProgress], None] = lambda progress: None,
    on_skip: OnSkip = ignore,
    **options: Any,
) -> EmbedResult:
    """Embed images, folders of them and the boxes of videos into a file or a folder.

    ::

        embed("c1.mp4", "model.onnx", "people.parquet", detections="c1.txt")

    Args:
        sources: image files, folders, videos, or sources of your own, in the order of the rows.
        model: an artefact, or one that is open already and stays so.
        out: ``NAME.parquet``, or a folder, in which a stopped run can go on.
        detections: the boxes of each video, in order: a file or what one holds.
        camera: name that goes into every row.
        runtime: a name of :data:`sa_runtime.runners.table.RUNNERS`, or ``auto``.
        batch_size: largest batch given to the runtime.
        dtype: of the stored vectors.
        max_delay_ms: see :func:`sa_runtime.pipeline.stages.run_pipeline`.
        strict: make a damaged image in a folder an error.
        max_pixels: of the largest image that is decoded; larger ones count as damaged.
        resume: go on with the folder of a run that was stopped.
        shard_rows: rows after which a folder's next file begins.
        on_progress: called once the model is open, and after every batch.
        on_skip: is given what is wrong with an image that is left out.
        options: of the runner, for example ``device`` and ``cache``.

    Raises:
        InputError: what cannot be embedded, or not be written to; nothing is changed then.
        SaDeployError: whatever else a user can fix.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike, Source)) else sources
    boxes = [detections] if isinstance(detections, (str, os.PathLike, Detections)) else detections
    kind, target = output_kind(out), Path(out)
    files = [place for place in (*given, *boxes) if isinstance(place, (str, os.PathLike))]
    artefact = files_of(Path(model)) if isinstance(model, (str, os.PathLike)) else []
    refuse_inputs(target, [*files, *artefact])
    kind.check(target, resume=resume)
    with quiet_opencv():
        found = find_sources(
            given,
            boxes,
            SourceOptions(strict=strict, camera=camera, max_pixels=max_pixels),
        )
        with _opened(model, runtime, options) as runner:
            plan = plan_of(
                runner.contract,
                runtime=getattr(runner, "label", runner.name),
                device=getattr(runner, "device_kind", ""),
                sources=[source.identity() for source in found],
                dtype=dtype,
                camera=camera,
                strict=strict,
            )
            output = kind(
                target,
                runner.contract,
                dtype=dtype,
                plan=plan,
                resume=resume,
                part_rows=shard_rows,
            )
            before = output.progress
            report = _Report(runner, sum(map(len, found)), before.rows, on_progress)
            with (
                _closing(output),
                ItemStream(
                    found, position=before.position, counts=before.counts, on_skip=on_skip
                ) as items,
            ):
                timing = _fill(
                    output, items, runner, report, batch_size=batch_size, max_delay_ms=max_delay_ms
                )
            return EmbedResult(
                model=str(getattr(runner, "path", runner.name)),
                runtime=runner.name,
                contract=runner.contract,
                dtype=dtype,
                out=target,
                files=tuple(output.files()),
                rows=output.progress.rows,
                resumed_rows=before.rows,
                counts=output.progress.counts,
                timing=timing,
            )


@contextmanager
def _opened(
    model: Location | Embedder | Runner, runtime: str, options: dict[str, Any]
) -> Iterator[Runner]:
    if isinstance(model, (str, os.PathLike)):
        with open_runner(Path(model), runtime, **options) as runner:
            yield runner
        return
    if options or runtime != "auto":
        named = ", ".join(options) or "runtime"
        raise InputError(f"{named}: the model is open already; open it with them")
    yield model.runner if isinstance(model, Embedder) else model


@contextmanager
def _closing(output: Output) -> Iterator[None]:
    try:
        yield
    finally:
        output.close()


class _Report:
    """Counts the rows and tells the caller."""

    def __init__(
        self,
        runner: Runner,
        rows_at_most: int,
        rows: int,
        on_progress: Callable[[EmbedProgress], None],
    ) -> None:
        self._runner = runner
        self._rows_at_most = rows_at_most
        self._rows = rows
        self._on_progress = on_progress
        self.add(0)

    def add(self, rows: int) -> None:
        self._rows += rows
        self._on_progress(
            EmbedProgress(rows=self._rows, rows_at_most=self._rows_at_most, runner=self._runner)
        )

    def beside(self, write: Sink) -> Sink:
        """A sink that also counts."""

        def both(rows: Sequence[Row], vectors: Embeddings) -> None:
            write(rows, vectors)
            self.add(len(rows))

        return both


def _fill(
    output: Output,
    items: ItemStream,
    runner: Runner,
    report: _Report,
    *,
    batch_size: int,
    max_delay_ms: float | None,
) -> PipelineResult:
    """Embed what is left, part by part; each is a pipeline of its own."""
    total = PipelineResult()
    while not output.progress.complete:
        with output.part() as writer:
            result = run_pipeline(
                _Part(items, output.part_rows),
                runner,
                report.beside(writer.write),
                batch_size=batch_size,
                max_delay_ms=max_delay_ms,
            )
            if items.ended:
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

    def __init__(self, items: ItemStream, rows: int | None) -> None:
        self._items = items
        self._left = rows
        self._stop = None if rows is None else time.monotonic() + PART_SECONDS
        self._begun = False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._begun and self._is_full():
            raise StopIteration
        item = next(self._items)
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
