from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.crops import crop_batch
from sa_runtime.errors import InputError, RunnerError, VideoError
from sa_runtime.items import Item, Row
from sa_runtime.pipeline.channel import Cancelled, Channel, Ended
from sa_runtime.pipeline.stages import run_pipeline
from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


class Overlapping(BaseRunner):
    """A runner that computes a batch only when ``depth`` later ones are in its hands."""

    def __init__(self, inner: BaseRunner, depth: int) -> None:
        super().__init__(inner.path, inner.contract)
        self.inner = inner
        self.depth = depth
        self.buffers: set[int] = set()

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return self.inner._infer(inputs)

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        held: list[Images] = []
        for batch in batches:
            self.buffers.add(batch.__array_interface__["data"][0])
            held.append(batch)
            if len(held) > self.depth:
                yield self.run(held.pop(0))
        for batch in held:
            yield self.run(batch)


class Failing(BaseRunner):
    """Fails on its third batch."""

    def __init__(self, inner: BaseRunner) -> None:
        super().__init__(inner.path, inner.contract)
        self.inner = inner
        self.calls = 0

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        self.calls += 1
        if self.calls == 3:
            raise RunnerError("the device is gone")
        return self.inner._infer(inputs)


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.batches: list[int] = []
        self.parts: list[Embeddings] = []

    def __call__(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        self.rows.extend(rows)
        self.batches.append(len(rows))
        self.parts.append(vectors)

    @property
    def vectors(self) -> Embeddings:
        return np.concatenate(self.parts) if self.parts else np.zeros((0, 12), np.float32)


def row(frame: int, track: int) -> Row:
    return Row("x", frame, frame / 10, track, 0, 0, 1, 1, 1, None)


def items(counts: Sequence[int], seed: int = 0) -> list[Item]:
    """Frames of noise, with so many random boxes each."""
    rng = np.random.default_rng(seed)
    made = []
    for frame, count in enumerate(counts, 1):
        image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        low = rng.uniform(0, 30, (count, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 30, (count, 2))], axis=1)
        made.append(Item(image, boxes, [row(frame, i) for i in range(count)]))
    return made


def expected_vectors(tiny_model: TinyModel, made: Sequence[Item]) -> Embeddings:
    crops = [crop_batch(item.image, item.boxes, 32, 16) for item in made]
    return tiny_model.embed(np.concatenate(crops))


def test_batches_are_full_across_frames_and_rows_stay_in_line(
    runner: BaseRunner, tiny_model: TinyModel
) -> None:
    made = items([3, 0, 5, 1, 11, 0, 2])
    sink = Collected()
    result = run_pipeline(iter(made), runner, sink, batch_size=4)
    assert sink.batches == [4, 4, 4, 4, 4, 2]
    assert sink.rows == [r for item in made for r in item.rows]
    np.testing.assert_allclose(sink.vectors, expected_vectors(tiny_model, made), atol=1e-5)
    assert (result.items, result.rows, result.outside) == (7, 22, 0)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_a_buffer_is_used_again_only_after_its_result(
    runner: BaseRunner, tiny_model: TinyModel, depth: int
) -> None:
    made = items([7] * 40)
    sink = Collected()
    overlapping = Overlapping(runner, depth)
    run_pipeline(made, overlapping, sink, batch_size=4)
    np.testing.assert_allclose(sink.vectors, expected_vectors(tiny_model, made), atol=1e-5)
    assert depth + 1 <= len(overlapping.buffers) <= depth + 3


def test_memory_stays_flat(runner: BaseRunner) -> None:
    overlapping = Overlapping(runner, 0)
    run_pipeline(iter(items([9] * 60)), overlapping, Collected(), batch_size=4)
    assert len(overlapping.buffers) <= 3


def test_a_slow_sink_holds_the_decoder_back(runner: BaseRunner) -> None:
    taken: list[int] = []
    written: list[int] = []
    ahead: list[int] = []

    def source() -> Iterator[Item]:
        for item in items([1] * 80):
            taken.append(1)
            ahead.append(len(taken) - len(written))
            yield item

    def sink(rows: Sequence[Row], vectors: Embeddings) -> None:
        time.sleep(0.003)
        written.extend([1] * len(rows))

    run_pipeline(source(), runner, sink, batch_size=2)
    assert len(written) == 80
    assert max(ahead) <= 30  # 8 queued items, 3 + 1 batches and 4 results of 2, a few in hand


def test_boxes_outside_are_counted_and_the_others_stay_in_line(
    runner: BaseRunner, tiny_model: TinyModel
) -> None:
    item = items([4])[0]
    item.boxes[1] = [-50, -50, -10, -10]
    item.boxes[2] = [3, 3, 3.2, 40]
    sink = Collected()
    result = run_pipeline([item], runner, sink)
    assert (result.outside, result.rows) == (2, 2)
    assert [r.track_id for r in sink.rows] == [0, 3]
    kept = Item(item.image, item.boxes[[0, 3]], [])
    np.testing.assert_allclose(sink.vectors, expected_vectors(tiny_model, [kept]), atol=1e-5)


@pytest.mark.parametrize("counts", [[], [0, 0, 0]])
def test_nothing_to_embed_ends_at_once(runner: BaseRunner, counts: list[int]) -> None:
    sink = Collected()
    result = run_pipeline(items(counts), runner, sink)
    assert (result.items, result.rows, sink.batches) == (len(counts), 0, [])


@settings(max_examples=20)
@given(
    counts=st.lists(st.integers(0, 9), max_size=8),
    batch_size=st.integers(1, 9),
    depth=st.integers(0, 4),
)
def test_the_batch_size_does_not_matter(
    tiny_model: TinyModel, counts: list[int], batch_size: int, depth: int
) -> None:
    made = items(counts)
    sink = Collected()
    with open_runner(tiny_model.path, "onnxruntime") as opened:
        run_pipeline(made, Overlapping(opened, depth), sink, batch_size=batch_size)
        whole = opened.run(
            np.concatenate(
                [np.zeros((0, 32, 16, 3), np.uint8)]
                + [crop_batch(item.image, item.boxes, 32, 16) for item in made]
            )
        )
    np.testing.assert_allclose(sink.vectors, whole, atol=1e-6)


def test_a_deadline_sends_a_batch_that_is_not_full(runner: BaseRunner) -> None:
    begun: list[float] = []
    written: list[float] = []
    arrived = threading.Event()

    def live() -> Iterator[Item]:
        for item in items([2, 1, 3]):
            begun.append(time.monotonic())
            yield item
            assert arrived.wait(20), "the batch waits for the next item"
            arrived.clear()

    def sink(rows: Sequence[Row], vectors: Embeddings) -> None:
        written.append(time.monotonic())
        batches.append(len(rows))
        arrived.set()

    batches: list[int] = []
    run_pipeline(live(), Overlapping(runner, 5), sink, batch_size=32, max_delay_ms=40)
    assert batches == [2, 1, 3]
    assert all(end - start >= 0.04 for start, end in zip(begun, written, strict=True))


def test_a_deadline_does_not_split_what_comes_together(runner: BaseRunner) -> None:
    sink = Collected()
    run_pipeline(items([1] * 8), runner, sink, batch_size=4, max_delay_ms=10_000)
    assert sink.batches == [4, 4]


def broken_source() -> Iterator[Item]:
    yield from items([3, 3, 3])
    raise VideoError("the tape is torn")


def broken_sink(rows: Sequence[Row], vectors: Embeddings) -> None:
    raise OSError("the disk is full")


def test_an_error_of_any_stage_comes_to_the_caller(runner: BaseRunner) -> None:
    closed = []

    def endless() -> Iterator[Item]:
        try:
            while True:
                yield from items([4])
        finally:
            closed.append(True)

    with pytest.raises(VideoError, match="the tape is torn"):
        run_pipeline(broken_source(), runner, Collected(), batch_size=2)
    with pytest.raises(OSError, match="the disk is full"):
        run_pipeline(endless(), runner, broken_sink, batch_size=2)
    with pytest.raises(RunnerError, match="the device is gone"):
        run_pipeline(endless(), Failing(runner), Collected(), batch_size=2)
    uneven = items([2])[0]._replace(rows=[row(1, 1)])
    with pytest.raises(InputError, match="an item of 2 boxes and 1 rows"):
        run_pipeline([*items([1] * 50), uneven], runner, Collected(), batch_size=2)
    assert closed == [True, True]


def test_an_interrupt_stops_every_stage(runner: BaseRunner) -> None:
    class Interrupted(Failing):
        def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(items([4] * 99), Interrupted(runner), Collected(), batch_size=2)


def test_options_out_of_range_are_named(runner: BaseRunner) -> None:
    with pytest.raises(InputError, match="batch_size=0"):
        run_pipeline([], runner, Collected(), batch_size=0)
    with pytest.raises(InputError, match="max_delay_ms=0: expected more than 0"):
        run_pipeline([], runner, Collected(), max_delay_ms=0)


def test_busy_times_are_split(runner: BaseRunner) -> None:
    def slow() -> Iterator[Item]:
        for item in items([2] * 10):
            time.sleep(0.02)
            yield item

    def sink(rows: Sequence[Row], vectors: Embeddings) -> None:
        time.sleep(0.02)

    result = run_pipeline(slow(), runner, sink, batch_size=2)
    assert result.decode_s >= 0.2
    assert result.write_s >= 0.2
    assert result.crop_s > 0
    assert 0 < result.inference_s < result.wall_s - 0.1  # waiting for batches is not inference
    assert result.wall_s < result.decode_s + result.write_s  # they overlap


def test_a_model_with_a_small_batch_is_not_given_more(
    make_tiny_model: Callable[..., TinyModel],
) -> None:
    sink = Collected()
    with open_runner(make_tiny_model(max_batch=3).path, "onnxruntime") as small:
        run_pipeline(items([8]), small, sink, batch_size=32)
    assert sink.batches == [3, 3, 2]


def test_channels_end_time_out_and_cancel() -> None:
    channel = Channel[int](1)
    with pytest.raises(TimeoutError):
        channel.get(time.monotonic() + 0.01)
    channel.put(1)
    channel.close()
    assert channel.get() == 1
    with pytest.raises(Ended):
        channel.get()

    full = Channel[int](1)
    full.put(1)
    seen: list[Any] = []

    def wait() -> None:
        try:
            full.put(2)
        except Cancelled as signal:
            seen.append(signal)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.02)
    full.cancel()
    thread.join(5)
    assert len(seen) == 1
    with pytest.raises(Cancelled):
        full.get()
