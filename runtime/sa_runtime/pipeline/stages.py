"""From pictures with boxes to vectors, as four stages that overlap.

::

    decode ──items──▶ crop + resize ──batches──▶ inference ──vectors──▶ write
    (thread)          (thread)                   (caller)               (thread)

Pixels stay uint8 and are copied once, by the resize, into a batch of a ring of buffers. A buffer
goes back into the ring when the runner has yielded its result, not before: runners that overlap
batches still read it until then. The ring grows to what the runner keeps in flight and no further,
so that memory stays flat however long the video is.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Images, check_image
from sa_runtime.errors import InputError, bad_value
from sa_runtime.items import Item, Row, Sink
from sa_runtime.pipeline.channel import Cancelled, Channel, Ended
from sa_runtime.runners.base import Runner, fitting_batch_size

QUEUED_ITEMS = 8
"""Decoded frames that may wait: enough to bridge a slow batch, 50 MB at 1920x1080."""


@dataclasses.dataclass(kw_only=True)
class PipelineResult:
    """What went through.

    Attributes:
        items: pictures decoded.
        rows: vectors written.
        outside: boxes left out because nothing of them was inside their picture.
        clipped: boxes that were cut because they reach out of their picture.
        decode_s: seconds in which pictures were decoded. The four stages overlap, so that the sum
            of their times may exceed ``wall_s``.
        crop_s: seconds in which crops were cut and resized.
        inference_s: seconds in which the runner was waited for; one that overlaps batches also
            computes while the next batch is awaited, which is not counted.
        write_s: seconds in which rows were written.
        wall_s: seconds from start to end.
    """

    items: int = 0
    rows: int = 0
    outside: int = 0
    clipped: int = 0
    decode_s: float = 0.0
    crop_s: float = 0.0
    inference_s: float = 0.0
    write_s: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: PipelineResult) -> PipelineResult:
        """The sums, for pipelines that ran one after the other."""
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        names = [field.name for field in dataclasses.fields(self)]
        sums = (mine + its for mine, its in zip(ours, theirs, strict=True))
        return PipelineResult(**dict(zip(names, sums, strict=True)))


def run_pipeline(
    items: Iterable[Item],
    runner: Runner,
    sink: Sink,
    *,
    batch_size: int = 32,
    max_delay_ms: float | None = None,
) -> PipelineResult:
    """Embed every box of every item.

    Args:
        items: the pictures; iterated, and closed where it is a generator, in a thread of its own.
        runner: an open model; it runs in the calling thread.
        sink: called in a thread of its own, in the order of the items.
        batch_size: crops in a batch; full batches are formed across items. Capped at what the
            model takes, or its own where that is fixed.
        max_delay_ms: for live sources: a batch that is not full is run when its oldest crop has
            waited this long, and batches are not overlapped, since an overlapping runner holds a
            result back until the next batch comes. ``None`` waits for full batches.

    Raises:
        InputError: a batch size or delay out of range.
        Exception: whatever a stage raised, as it was raised; the others are stopped first.
    """
    if max_delay_ms is not None and not max_delay_ms > 0:
        raise bad_value("max_delay_ms", max_delay_ms, "expected more than 0, or none")
    batch_size = fitting_batch_size(runner, batch_size)
    return _Pipeline(runner, sink, batch_size, max_delay_ms).run(items)


class _Batch(NamedTuple):
    buffer: Images  # (batch_size, H, W, 3); its first len(rows) are filled
    rows: list[Row]


class _Stopwatch:
    """Adds up the seconds of its ``with`` blocks; each belongs to one thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._start


class _Pipeline:
    """The stages and what passes between them; each field of the result has one writer."""

    def __init__(
        self, runner: Runner, sink: Sink, batch_size: int, max_delay_ms: float | None
    ) -> None:
        spec = runner.contract.input
        self._shape = (batch_size, spec.height, spec.width, 3)
        self._runner = runner
        self._sink = sink
        self._delay_s = None if max_delay_ms is None else max_delay_ms / 1000
        self._result = PipelineResult()
        self._items = Channel[Item](QUEUED_ITEMS)
        self._free = Channel[Images]()
        self._ready = Channel[_Batch]()  # bounded by the number of buffers
        self._done = Channel[tuple[list[Row], Embeddings]](4)
        self._buffers = 0
        self._batch: _Batch | None = None
        self._deadline: float | None = None
        self._in_flight: deque[_Batch] = deque()
        self._waited_s = 0.0
        self._decoding, self._cropping, self._writing = _Stopwatch(), _Stopwatch(), _Stopwatch()
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, items: Iterable[Item]) -> PipelineResult:
        start = time.perf_counter()
        stages: dict[str, Callable[[], None]] = {
            "sa-decode": lambda: self._decode(items),
            "sa-crop": self._crop,
            "sa-write": self._write,
        }
        threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=name, daemon=True)
            for name, stage in stages.items()
        ]
        try:
            for thread in threads:
                thread.start()
            self._infer()
            for thread in threads:
                thread.join()
        except Cancelled:
            pass
        except BaseException as error:  # an interrupt, too, which may come at any moment
            self._stop(error)
        for thread in threads:
            if thread.is_alive():
                thread.join()
        if self._error is not None:
            raise self._error
        self._result.decode_s = self._decoding.seconds
        self._result.crop_s = self._cropping.seconds
        self._result.write_s = self._writing.seconds
        self._result.wall_s = time.perf_counter() - start
        return self._result

    def _guarded(self, stage: Callable[[], None]) -> None:
        """Run a stage; the first to fail keeps its error and stops the others."""
        try:
            stage()
        except Cancelled:
            return
        except BaseException as error:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        for channel in (self._items, self._free, self._ready, self._done):
            channel.cancel()

    def _decode(self, items: Iterable[Item]) -> None:
        iterator = iter(items)
        try:
            while True:
                with self._decoding:
                    item = next(iterator, None)
                if item is None:
                    break
                self._result.items += 1
                self._items.put(item)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
        self._items.close()

    def _crop(self) -> None:
        while True:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._send()
            try:
                item = self._items.get(self._deadline)
            except TimeoutError:
                continue
            except Ended:
                break
            self._cut(item)
        self._send()
        self._ready.close()

    def _cut(self, item: Item) -> None:
        image = check_image(item.image, "image of an item")
        boxes, valid = crops.clip_boxes(item.boxes, image.shape[0], image.shape[1])
        if len(boxes) != len(item.rows):
            raise InputError(f"an item of {len(boxes)} boxes and {len(item.rows)} rows")
        chosen = np.flatnonzero(valid)
        self._result.outside += len(boxes) - len(chosen)
        cut = crops.reach_out(item.boxes, image.shape[0], image.shape[1])
        self._result.clipped += int(np.count_nonzero(cut[chosen]))
        while len(chosen):
            buffer, rows = self._open_batch()
            part = chosen[: len(buffer) - len(rows)]
            with self._cropping:
                crops.cut_into(image, boxes[part], buffer[len(rows) : len(rows) + len(part)])
            rows.extend(item.rows[index] for index in part)
            chosen = chosen[len(part) :]
            if len(rows) == len(buffer):
                self._send()

    def _open_batch(self) -> _Batch:
        """The batch being filled; a free buffer starts a new one."""
        if self._batch is None:
            self._batch = _Batch(self._free.get(), [])
            if self._delay_s is not None:
                self._deadline = time.monotonic() + self._delay_s
        return self._batch

    def _send(self) -> None:
        if self._batch is not None:
            self._ready.put(self._batch)
        self._batch = self._deadline = None

    def _infer(self) -> None:
        start = time.perf_counter()
        if self._delay_s is None:
            stream = self._runner.run_stream(self._batches())
        else:
            stream = map(self._runner.run, self._batches())
        for vectors in stream:
            batch = self._in_flight.popleft()
            self._free.put(batch.buffer)
            waiting = time.perf_counter()
            self._done.put((batch.rows, vectors))
            self._waited_s += time.perf_counter() - waiting
        self._done.close()
        self._result.inference_s = time.perf_counter() - start - self._waited_s

    def _batches(self) -> Iterator[Images]:
        while True:
            # Beyond those in flight: one to hand out, one that is ready, one being filled.
            while self._buffers < len(self._in_flight) + 3:
                self._free.put(np.empty(self._shape, np.uint8))
                self._buffers += 1
            waiting = time.perf_counter()
            try:
                batch = self._ready.get()
            except Ended:
                return
            finally:
                self._waited_s += time.perf_counter() - waiting
            self._in_flight.append(batch)
            yield batch.buffer[: len(batch.rows)]

    def _write(self) -> None:
        for rows, vectors in self._done:
            with self._writing:
                self._sink(rows, vectors)
            self._result.rows += len(rows)
