"""Many threads on one runner: every vector is its own crop's, and closing waits for calls."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.embedder import Embedder
from sa_runtime.errors import RunnerError
from sa_runtime.items import Item, Row
from sa_runtime.pipeline.stages import run_pipeline
from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.calls import Calls
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.openvino import OpenVinoRunner

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_artefacts", "tests.tiny_onnx")

THREADS = 4
CROPS = 32
# runtime, file of the tiny network (none: of the tiny model, whose calls take microseconds), calls
CASES = [
    ("onnxruntime", "", 1000),
    ("openvino", "", 1000),
    ("onnxruntime", "onnx", 24),
    ("openvino", "onnx", 24),
    ("openvino", "fixed", 16),
    ("openvino", "openvino", 16),
    ("torchscript", "torchscript", 16),
    ("torch-export", "torch-export", 16),
    ("torch", "torch", 16),
]


class Oracle:
    """Crops and the vector of each, taken one at a time by one thread."""

    def __init__(self, runner: BaseRunner) -> None:
        spec = runner.contract.input
        blocks = np.random.default_rng(1).integers(0, 256, (CROPS, 8, 4, 3), dtype=np.uint8)
        self.images: Images = blocks.repeat(spec.height // 8, axis=1).repeat(
            spec.width // 4, axis=2
        )
        self.vectors: Embeddings = np.concatenate(
            [runner.run(self.images[i : i + 1]) for i in range(CROPS)]
        )
        apart = np.linalg.norm(self.vectors[:, None] - self.vectors[None], axis=2)
        assert apart[~np.eye(CROPS, dtype=bool)].min() > 0.01, "crops too alike to tell them apart"

    def check(self, chosen: list[int], vectors: Embeddings) -> None:
        np.testing.assert_allclose(vectors, self.vectors[chosen], atol=2e-4)


def drawn(rng: np.random.Generator, most: int = 6) -> list[int]:
    """Crops of a small batch, at times of an empty one or of one that must be split."""
    return [int(index) for index in rng.integers(0, CROPS, rng.integers(0, most + 1))]


def hammer(runner: BaseRunner, oracle: Oracle, calls: int) -> None:
    """``calls`` calls from every thread: ``run``, ``run_stream`` and an embedder's in turn."""
    embedder = Embedder.from_runner(runner, batch_size=3)
    together = threading.Barrier(THREADS)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        together.wait()
        for call in range(calls):
            if call % 8 == 6:
                chosen = drawn(rng)
                oracle.check(chosen, embedder.embed(oracle.images[chosen]))
            elif call % 8 == 7:
                batches = [drawn(rng) for _ in range(4)]
                stream = runner.run_stream(oracle.images[batch] for batch in batches)
                for batch, vectors in zip(batches, stream, strict=True):
                    oracle.check(batch, vectors)
            else:
                chosen = drawn(rng)
                oracle.check(chosen, runner.run(oracle.images[chosen]))

    in_threads(work)


def in_threads(work: Callable[[int], None]) -> None:
    """``work(0)`` to ``work(3)`` at once; what one of them raises is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, index) for index in range(THREADS)]:
            done.result(timeout=300)


@pytest.fixture
def open_case(
    tiny_artefacts: TinyArtefacts, tiny_model: TinyModel
) -> Callable[[str, str], BaseRunner]:
    def opened(runtime: str, artefact: str) -> BaseRunner:
        path = tiny_artefacts.files[artefact] if artefact else tiny_model.path
        return open_runner(path, runtime)

    return opened


Opened = Callable[[str, str], BaseRunner]


@pytest.mark.parametrize(("runtime", "artefact", "calls"), CASES)
def test_every_vector_is_its_own_crops(
    open_case: Opened, runtime: str, artefact: str, calls: int
) -> None:
    with open_case(runtime, artefact) as runner:
        hammer(runner, Oracle(runner), calls)
        if isinstance(runner, OpenVinoRunner):
            assert len(runner._requests.made) <= THREADS * runner.depth


@pytest.mark.soak
@pytest.mark.parametrize(("runtime", "artefact", "calls"), CASES)
def test_every_vector_is_its_own_crops_for_long(
    open_case: Opened, runtime: str, artefact: str, calls: int
) -> None:
    with open_case(runtime, artefact) as runner:
        hammer(runner, Oracle(runner), 20 * calls)


def test_calls_one_after_the_other_share_one_request(tiny_model: TinyModel) -> None:
    with open_runner(tiny_model.path, "openvino") as runner:
        assert isinstance(runner, OpenVinoRunner)
        oracle = Oracle(runner)
        assert len(runner._requests.made) == 1
        for _ in range(3):
            list(runner.run_stream([oracle.images] * 5))
        assert len(runner._requests.made) == runner.depth


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("delay_ms", [5.0, None])
def test_two_pipelines_share_a_runner(
    tiny_model: TinyModel, runtime: str, delay_ms: float | None
) -> None:
    with open_runner(tiny_model.path, runtime) as runner:
        oracle = Oracle(runner)
        height, width = oracle.images.shape[1:3]
        box = np.array([[0, 0, width, height]], np.float64)

        def work(seed: int) -> None:
            chosen = np.random.default_rng(seed).integers(0, CROPS, 120)

            def items() -> Iterator[Item]:
                for number, index in enumerate(chosen):
                    if number % 40 == 39:
                        time.sleep(0.01)  # longer than a batch may wait
                    yield Item(
                        oracle.images[index],
                        box,
                        [Row(str(index), None, None, None, 0, 0, width, height, None, None)],
                    )

            found: list[tuple[int, Embeddings]] = []
            result = run_pipeline(
                items(),
                runner,
                lambda rows, vectors: found.append((len(rows), vectors)),
                batch_size=7,
                max_delay_ms=delay_ms,
            )
            assert result.rows == len(chosen)
            oracle.check(chosen.tolist(), np.concatenate([vectors for _, vectors in found]))

        in_threads(work)


CLOSED = [("onnxruntime", "onnx"), ("openvino", "onnx"), ("torch", "torch")]


@pytest.mark.parametrize(("runtime", "artefact"), CLOSED)
@pytest.mark.parametrize("call", ["run", "embed", "stream"])
def test_calls_beside_closing_end_well(
    open_case: Opened, runtime: str, artefact: str, call: str
) -> None:
    runner = open_case(runtime, artefact)
    oracle = Oracle(runner)
    embedder = Embedder.from_runner(runner, batch_size=2)
    begun = threading.Barrier(THREADS + 1)
    finished: list[int] = []
    chosen = list(range(8))

    def work(thread: int) -> None:
        images = oracle.images[chosen]
        streamed = runner.run_stream(itertools.repeat(images))

        def until_refused() -> None:
            while True:
                if call == "run":
                    vectors = runner.run(images)
                elif call == "embed":
                    vectors = embedder.embed(images)
                else:
                    vectors = next(streamed)
                oracle.check(chosen, vectors)
                finished.append(thread)

        begun.wait()
        with pytest.raises(RunnerError, match="is closed; open the model again"):
            until_refused()

    def close(_: int) -> None:
        begun.wait()
        time.sleep(0.1)
        embedder.close()
        embedder.close()
        count = len(finished)
        time.sleep(0.05)
        # One that had its vectors when it was closed may have been about to note it.
        assert len(finished) <= count + THREADS

    with ThreadPoolExecutor(THREADS + 1) as pool:
        for done in [pool.submit(work, i) for i in range(THREADS)] + [pool.submit(close, 0)]:
            done.result(timeout=60)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_stream_that_waits_for_its_caller_holds_nobody_up(
    tiny_model: TinyModel, runtime: str
) -> None:
    runner = open_runner(tiny_model.path, runtime)
    oracle = Oracle(runner)
    stream = runner.run_stream([oracle.images[:2]] * 9)
    oracle.check([0, 1], next(iter(stream)))
    runner.close()
    with pytest.raises(RunnerError, match=r"tiny0\.onnx: the runner is closed; open the model"):
        list(stream)


def test_closing_waits_for_the_calls_in_flight() -> None:
    calls, entered, leave = Calls("model.onnx: the runner"), threading.Event(), threading.Event()
    told: list[str] = []

    def call() -> None:
        with calls:
            entered.set()
            leave.wait(10)
            told.append("called")

    threads = [threading.Thread(target=call) for _ in range(2)]
    closing = threading.Thread(target=calls.close, args=(lambda: told.append("freed"),))
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    closing.start()
    while not calls._closing:
        time.sleep(0.001)
    with pytest.raises(RunnerError, match="is closed"), calls:
        pass
    assert told == []
    leave.set()
    for thread in (*threads, closing):
        thread.join(10)
    assert told == ["called", "called", "freed"]


def test_closing_inside_a_call_of_the_same_thread_is_refused() -> None:
    calls, freed = Calls("model.onnx: the runner"), list[str]()
    with calls, pytest.raises(RunnerError, match="closed inside a call of the same thread"):
        calls.close(lambda: freed.append("too early"))
    calls.close(lambda: freed.append("in time"))
    assert freed == ["in time"]
