"""Batches across requests: full or in time, clients in turn, nothing that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.runners.opening import open_runner
from sa_runtime.service.batcher import Batcher
from sa_runtime.service.refusals import DeadlineError, FullError
from sa_runtime.service.tickets import BatchReport, Ticket

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


class Held:
    """A real runner whose batches wait until they are let go, and are noted."""

    name: ClassVar[str] = "held"

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.contract = runner.contract
        self.max_batch = runner.max_batch
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[Images] = []
        self.fails: Callable[[Images], bool] = lambda images: False

    def run(self, images: Images) -> Embeddings:
        self.batches.append(images.copy())
        self.entered.release()
        assert self.go.wait(10)
        if self.fails(images):
            raise RunnerError("gave a vector that is not finite (row 0)")
        vectors: Embeddings = self._runner.run(images)
        return vectors

    def run_stream(self, batches: Any) -> Any:
        return map(self.run, batches)

    def close(self) -> None:
        self._runner.close()


@contextmanager
def batching(model: TinyModel, **options: Any) -> Iterator[tuple[Batcher, Held]]:
    with open_runner(model.path, "onnxruntime", threads=1) as runner:
        held = Held(runner)
        batcher = Batcher(held, **{"batch_size": 4, "max_delay_ms": 1.0, **options})
        try:
            yield batcher, held
        finally:
            held.go.set()
            batcher.close()


def crops(count: int, shade: int = 0) -> Images:
    found = np.random.default_rng(shade).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)
    found[:, 0, 0] = shade
    return found


def answer_of(ticket: Ticket, seconds: float = 5) -> Embeddings:
    until = time.monotonic() + seconds
    while not ticket.over:
        assert time.monotonic() < until
        time.sleep(0.001)
    return ticket.answer()


def shades(batch: Images) -> list[int]:
    return [int(image[0, 0, 0]) for image in batch]


def test_one_that_asks_for_many_does_not_keep_the_others_waiting(tiny_model: TinyModel) -> None:
    with batching(tiny_model) as (batcher, held):
        first = batcher.submit(crops(1, 9), client="first")
        assert held.entered.acquire(timeout=5)
        greedy = batcher.submit(crops(12, 1), client="greedy")
        modest = [batcher.submit(crops(1, shade), client=f"c{shade}") for shade in (2, 3)]
        held.go.set()
        for ticket in (first, greedy, *modest):
            answer_of(ticket)
        assert sorted(shades(held.batches[1])) == [1, 1, 2, 3]
        assert [len(batch) for batch in held.batches] == [1, 4, 4, 4, 2]
        np.testing.assert_allclose(greedy.vectors, tiny_model.embed(greedy.crops), atol=2e-6)


def test_a_batch_waits_for_others_but_not_longer_than_said(tiny_model: TinyModel) -> None:
    with batching(tiny_model, max_delay_ms=500.0) as (batcher, held):
        held.go.set()
        began = time.monotonic()
        answer_of(batcher.submit(crops(1)))
        assert 0.49 < time.monotonic() - began < 5
        began = time.monotonic()
        answer_of(batcher.submit(crops(4)))
        assert time.monotonic() - began < 0.45


def test_the_queue_is_bounded_and_says_when_to_come_again(tiny_model: TinyModel) -> None:
    with batching(tiny_model, queue_crops=8) as (batcher, held):
        batcher.submit(crops(1))
        assert held.entered.acquire(timeout=5)
        tickets = [batcher.submit(crops(4)), batcher.submit(crops(4))]
        with pytest.raises(FullError, match="8 crops wait and 8 may; come again in 1 s") as told:
            batcher.submit(crops(1))
        assert told.value.retry_after_s == 1
        held.go.set()
        for ticket in tickets:
            assert answer_of(ticket).shape == (4, 12)
        assert batcher.waiting == 0


def test_what_cannot_be_done_in_time_is_not_taken(tiny_model: TinyModel) -> None:
    with batching(tiny_model, queue_crops=500) as (batcher, held):
        first = batcher.submit(crops(4))
        time.sleep(0.05)  # 80 crops a second at most
        held.go.set()
        answer_of(first)
        held.go.clear()
        batcher.submit(crops(400))
        with pytest.raises(FullError, match=r"which takes \d+\.\d s, and the request has 1\.0 s"):
            batcher.submit(crops(1), deadline=time.monotonic() + 1)
        over = batcher.submit(crops(1), deadline=time.monotonic() - 1)  # it is not to come again
        held.go.set()
        with pytest.raises(DeadlineError):
            answer_of(over)


def test_crops_whose_time_is_over_are_not_run(tiny_model: TinyModel) -> None:
    with batching(tiny_model) as (batcher, held):
        batcher.submit(crops(1, 1))
        assert held.entered.acquire(timeout=5)
        late = batcher.submit(crops(2, 2), deadline=time.monotonic() + 0.05)
        given_up = batcher.submit(crops(2, 3))
        kept = batcher.submit(crops(2, 4))
        batcher.cancel(given_up)
        time.sleep(0.1)
        held.go.set()
        assert answer_of(kept).shape == (2, 12)
        with pytest.raises(DeadlineError, match="its time was over"):
            answer_of(late)
        assert given_up.over
        assert [shades(batch) for batch in held.batches] == [[1], [4, 4]]


def test_one_that_fails_does_not_take_the_others_with_it(tiny_model: TinyModel) -> None:
    told: list[BatchReport] = []
    with batching(tiny_model, on_batch=told.append) as (batcher, held):
        held.fails = lambda images: 7 in shades(images)
        batcher.submit(crops(1, 1))
        assert held.entered.acquire(timeout=5)
        bad, good = batcher.submit(crops(6, 7), client="a"), batcher.submit(crops(2, 2), client="b")
        held.go.set()
        np.testing.assert_allclose(answer_of(good), tiny_model.embed(good.crops), atol=2e-6)
        with pytest.raises(RunnerError, match="not finite"):
            answer_of(bad)
        assert batcher.waiting == 0
    failed = [report for report in told if report.failed]
    assert [(report.failed, report.not_finite) for report in failed] == [(2, 2)]
    assert len(failed[0].vectors) == failed[0].crops - 2


def test_closing_runs_what_waits_and_takes_no_more(tiny_model: TinyModel) -> None:
    with batching(tiny_model, max_delay_ms=60_000.0) as (batcher, held):
        held.go.set()
        ticket = batcher.submit(crops(2))
        batcher.close()
        assert ticket.answer().shape == (2, 12)
        with pytest.raises(RunnerError, match="being closed"):
            batcher.submit(crops(1))


def test_delays_and_sizes_out_of_range_are_refused(tiny_model: TinyModel) -> None:
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        with pytest.raises(InputError, match="max_delay_ms=-1"):
            Batcher(runner, max_delay_ms=-1)
        with pytest.raises(InputError, match="batch_size=0"):
            Batcher(runner, batch_size=0)


def test_lanes_run_batches_at_the_same_time_and_share_a_request(tiny_model: TinyModel) -> None:
    with batching(tiny_model, lanes=2, queue_crops=500) as (batcher, held):
        images = crops(8, 3)
        ticket = batcher.submit(images)
        for _ in range(2):
            assert held.entered.acquire(timeout=5)
        assert [len(batch) for batch in held.batches] == [4, 4]
        assert batcher.wait_s(0) == 0  # no speed is known yet
        held.go.set()
        found = answer_of(ticket)
    np.testing.assert_allclose(found, tiny_model.embed(images), atol=2e-6)


def test_lanes_that_are_free_share_a_batch(tiny_model: TinyModel) -> None:
    with batching(tiny_model, lanes=2, max_delay_ms=60_000) as (batcher, held):
        ticket = batcher.submit(crops(4))  # full for one
        for _ in range(2):
            assert held.entered.acquire(timeout=5)
        assert [len(batch) for batch in held.batches] == [2, 2]
        held.go.set()
        answer_of(ticket)
        later = batcher.submit(crops(1))
        assert not held.entered.acquire(timeout=0.05)  # and what comes afterwards waits for others
        batcher.cancel(later)


def test_every_crop_of_many_clients_comes_back_to_its_own(tiny_model: TinyModel) -> None:
    with batching(tiny_model, lanes=3, max_delay_ms=0.5, queue_crops=10_000) as (batcher, held):
        held.go.set()
        asked = [(crops(1 + n % 7, n), f"client {n % 5}") for n in range(150)]
        tickets = [batcher.submit(images, client=client) for images, client in asked]
        for (images, _), ticket in zip(asked, tickets, strict=True):
            found = answer_of(ticket, 20)
            np.testing.assert_allclose(found, tiny_model.embed(images), atol=2e-6)
    assert (batcher.waiting, batcher._running) == (0, 0)


def test_no_lane_is_refused(tiny_model: TinyModel) -> None:
    with (
        open_runner(tiny_model.path, "onnxruntime", threads=1) as runner,
        pytest.raises(InputError, match="lanes=0: expected at least 1"),
    ):
        Batcher(runner, lanes=0)


def test_after_a_refusal_as_many_wait_as_are_run_at_a_time(tiny_model: TinyModel) -> None:
    with batching(tiny_model, queue_crops=12) as (batcher, held):
        batcher.submit(crops(1))
        assert held.entered.acquire(timeout=5)
        burst = [batcher.submit(crops(4), client=name) for name in "abc"]
        with pytest.raises(FullError, match="12 crops wait and 12 may"):
            batcher.submit(crops(1))
        for ticket in burst[1:]:  # four are left, a batch
            batcher.cancel(ticket)
        with pytest.raises(FullError, match="4 crops wait and 4 may"):
            batcher.submit(crops(1))
        with pytest.raises(FullError, match="4 crops wait and 4 may"):
            batcher.expect()
        batcher.cancel(burst[0])
        assert batcher.submit(crops(4)).left == 4
        held.go.set()
