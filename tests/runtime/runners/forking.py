"""Opens a model, uses it, forks and uses it in the child; run in a process of its own::

    python -m tests.runtime.runners.forking RUNTIME MODEL

prints as JSON what each call in the child gave and how long it took.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.embedder import Embedder
from sa_runtime.errors import RunnerError
from sa_runtime.runners.opening import open_runner

Call = Callable[[], Embeddings | None]


def main(runtime: str, model: str) -> None:
    runner = open_runner(model, runtime)
    embedder = Embedder(model, runtime)
    spec = runner.contract.input
    images = np.random.default_rng(0).integers(
        0, 256, (4, spec.height, spec.width, 3), dtype=np.uint8
    )
    wanted = runner.run(images)
    assert np.allclose(embedder.embed(images), wanted, atol=1e-5)
    stream = iter(runner.run_stream([images] * 9))
    next(stream)
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            runner.run(images)

    refused: dict[str, Call] = {
        "run": lambda: runner.run(images),
        "embed": lambda: embedder.embed(images),
        "stream": lambda: next(stream),
        "close": runner.close,
    }
    thread = threading.Thread(target=busy)  # inside a call, or at its lock, when it is forked
    thread.start()
    told = in_child(refused, wanted)
    over.set()
    thread.join()
    told |= in_child({"reopened": lambda: open_runner(Path(model), runtime).run(images)}, wanted)
    # The parent goes on as if nothing had been.
    assert np.allclose(runner.run(images), wanted, atol=1e-5)
    assert np.allclose(next(stream), wanted, atol=1e-5)
    runner.close()
    embedder.close()
    print(json.dumps({"parent": os.getpid(), "told": told}))


def in_child(calls: dict[str, Call], wanted: Embeddings) -> dict[str, tuple[str, float]]:
    """What each call gives in a forked process, and its seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = {name: outcome(call, wanted) for name, call in calls.items()}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    found: dict[str, tuple[str, float]] = json.loads(text)
    return found


def outcome(call: Call, wanted: Embeddings) -> tuple[str, float]:
    start = time.perf_counter()
    try:
        vectors = call()
        right = vectors is None or np.allclose(vectors, wanted, atol=1e-5)
        text = ("nothing" if vectors is None else "vectors") if right else "wrong vectors"
    except RunnerError as error:
        text = str(error)
    return text, time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
