"""One contender in a process of its own: ``python -m sa_runtime.bench.worker``.

Reads one JSON request a line from standard input and answers each with one JSON line on standard
output; what libraries print goes to standard error. Requests are the methods of :class:`Worker`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa_runtime.arrays import Images
from sa_runtime.errors import SaDeployError
from sa_runtime.items import Counts, Item
from sa_runtime.runners.base import BaseRunner
from sa_runtime.sources.base import START, OnSkip, Place, Source, ignore

if TYPE_CHECKING:
    from sa_runtime.bench.limits import Limits, Pace

Answer = dict[str, Any]


class Worker:
    """A model on a runtime, and what is asked of it."""

    def __init__(self) -> None:
        self._runner: BaseRunner | None = None
        self._images: Images | None = None
        self._limits: Limits | None = None
        self._pace: Pace | None = None

    @property
    def runner(self) -> BaseRunner:
        """The open model."""
        assert self._runner is not None, "open comes first"
        return self._runner

    def open(self, model: str, runtime: str, options: dict[str, Any]) -> Answer:
        """Open the model and run it once; times are those of a fresh process."""
        from sa_runtime.runners.opening import open_runner

        start = time.perf_counter()
        self._runner = runner = open_runner(model, runtime, **options)
        opened = time.perf_counter()
        spec = runner.contract.input
        runner.run(np.zeros((1, spec.height, spec.width, 3), np.uint8))
        return {
            "runtime": runner.name,
            "label": runner.label,
            "precision": runner.precision,
            "device": runner.device,
            "details": runner.details,
            "reason": runner.reason,
            "open_s": opened - start,
            "first_s": time.perf_counter() - opened,
            "max_batch": runner.max_batch,
            "contract": runner.contract.to_json(),
        }

    def load(self, images: str) -> Answer:
        """Take the crops of a ``.npy`` file, (N, H, W, 3) uint8, to run on."""
        self._images = np.load(images)
        return {}

    def run(self, batch: int, streams: int, seconds: float, iterations: int) -> Answer:
        """Run batches and time each, after one that is not counted.

        Args:
            batch: crops in each.
            streams: batches in flight; with more than one, a latency counts from handing a batch
                in to having its vectors.
            seconds: to go on for.
            iterations: the least number of runs; the exact one where ``seconds`` is 0.
        """
        images = self._batch(batch)
        if streams == 1:
            self.runner.run(images)
            return self._serial(images, seconds, iterations)
        for _ in self.runner.run_stream([images] * streams):
            pass
        return self._overlapped(images, seconds, max(iterations, streams))

    def _serial(self, images: Images, seconds: float, iterations: int) -> Answer:
        run, clock = self.runner.run, time.perf_counter_ns
        latencies: list[int] = []
        start = clock()
        stop = start + int(seconds * 1e9)
        while len(latencies) < iterations or clock() < stop:
            before = clock()
            run(images)
            latencies.append(clock() - before)
        return _timed(latencies, clock() - start)

    def _overlapped(self, images: Images, seconds: float, iterations: int) -> Answer:
        clock = time.perf_counter_ns
        handed_in: list[int] = []
        latencies: list[int] = []
        start = clock()
        stop = start + int(seconds * 1e9)

        def batches() -> Iterator[Images]:
            while len(handed_in) < iterations or clock() < stop:
                handed_in.append(clock())
                yield images

        for done, _ in enumerate(self.runner.run_stream(batches())):
            latencies.append(clock() - handed_in[done])
        return _timed(latencies, clock() - start)

    def embed(self, images: str, out: str, batch: int) -> Answer:
        """Vectors of the crops in a ``.npy`` file, written to another, a batch at a time."""
        crops = np.load(images)
        parts = [self.runner.run(crops[i : i + batch]) for i in range(0, len(crops), batch)]
        np.save(out, np.concatenate(parts))
        return {}

    def end_to_end(self, source: str, detections: str | None, batch: int, seconds: float) -> Answer:
        """Embed a folder or video from file to file, over and over, for some seconds."""
        from sa_runtime.pipeline.embed import embed
        from sa_runtime.sources.reader import quiet_opencv
        from sa_runtime.sources.table import find_sources

        with quiet_opencv(), tempfile.TemporaryDirectory() as folder:
            (found,) = find_sources([source], [detections] if detections else [])
            result = embed(
                _Repeated(found, time.perf_counter() + seconds),
                self.runner,
                Path(folder) / "embeddings.parquet",
                batch_size=batch,
            )
        return dataclasses.asdict(result.timing)

    def evaluate(self, dataset: str, data_dir: str, batch: int) -> Answer:
        """Retrieval on a labelled data set."""
        from sa_runtime.embedder import Embedder
        from sa_runtime.retrieval.evaluation import evaluate

        embedder = Embedder.from_runner(self.runner, batch_size=batch)
        report = evaluate(embedder, dataset, data_dir)
        return {"mAP": report.mAP, "rank1": report.rank(1)}

    def limits(self, seconds: float) -> Answer:
        """The processor's limits; for a worker without a model."""
        from sa_runtime.bench.limits import Limits

        self._limits = self._limits or Limits()
        return {"tflops": self._limits.measure(seconds)}

    def pace(self, seconds: float) -> Answer:
        """How fast the machine is at this moment; for a worker without a model."""
        from sa_runtime.bench.limits import Pace

        self._pace = self._pace or Pace()
        return {"tflops": self._pace.measure(seconds)}

    def memory(self) -> Answer:
        """Most memory that this process held so far."""
        return {"peak_mb": _peak_mb()}

    def _batch(self, size: int) -> Images:
        assert self._images is not None, "load comes first"
        return np.resize(self._images, (size, *self._images.shape[1:]))


class _Repeated:
    """A source that begins again from its start until a moment of ``time.perf_counter``."""

    def __init__(self, source: Source, stop: float) -> None:
        self._source = source
        self._stop = stop

    def __len__(self) -> int:
        return len(self._source)

    def identity(self) -> dict[str, Any]:
        return self._source.identity()

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        while True:
            for item in self._source.items(counts, after=after, on_skip=on_skip):
                yield item
                if time.perf_counter() > self._stop:
                    return

    def digest(self, item: Item) -> str:
        return ""


def _timed(latencies_ns: list[int], wall_ns: int) -> Answer:
    return {"latencies_ms": [value / 1e6 for value in latencies_ns], "wall_s": wall_ns / 1e9}


def _peak_mb() -> float:
    # Linux's ru_maxrss survives exec: a process that a large one starts would be given its peak.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    # Kilobytes on Linux and BSD, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except SaDeployError as error:
            plain = error.value if isinstance(error.value, str | int | float) else None
            about = {"parameter": error.parameter, "value": plain}
            answer = {"error": type(error).__name__, "text": str(error), **about}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
