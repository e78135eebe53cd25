"""The loop that every peer's program runs in its own environment: JSON lines in, JSON lines out.

It needs NumPy only, and OpenCV where it reads files. Crops come as detectors give them: BGR pixels
of any size.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Crops = Sequence[NDArray[np.uint8]]
Embed = Callable[[Crops], NDArray[np.float32]]


def read_crops(path: str) -> list[NDArray[np.uint8]]:
    """The (H, W, 3) arrays of an ``.npz`` file, in order."""
    with np.load(path) as archive:
        return [archive[f"crop{i}"] for i in range(len(archive.files))]


def serve(open_peer: Callable[[str], tuple[Embed, dict[str, str]]]) -> None:
    """Answer requests until standard input ends.

    Args:
        open_peer: a model's path -> a function from crops to (N, D) vectors, and what it runs on.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embed: Embed | None = None
    crops: list[NDArray[np.uint8]] = []
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        do = request["do"]
        answer: dict[str, Any] = {}
        if do == "open":
            start = time.perf_counter()
            embed, details = open_peer(request["model"])
            answer = {"open_s": time.perf_counter() - start, "details": details}
        elif do == "load":
            crops = read_crops(request["crops"])
        elif do == "embed":
            assert embed is not None
            step = request["batch"]
            parts = [embed(crops[i : i + step]) for i in range(0, len(crops), step)]
            np.save(request["out"], np.concatenate(parts))
        elif do == "run":
            assert embed is not None
            answer = _timed(embed, crops, request["batch"], request["seconds"])
        elif do == "files":
            assert embed is not None
            answer = {"wall_s": _files(embed, request["paths"], request["batch"])}
        elif do == "memory":
            answer = {"peak_mb": _peak_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def _timed(embed: Embed, crops: Crops, batch: int, seconds: float) -> dict[str, Any]:
    """Batch after batch of the crops, each timed, after one that is not counted."""
    chosen = [crops[i % len(crops)] for i in range(max(batch, len(crops)))]
    batches = [chosen[i : i + batch] for i in range(0, len(chosen) - batch + 1, batch)]
    embed(batches[0])
    latencies: list[float] = []
    start = time.perf_counter()
    while not latencies or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        embed(batches[len(latencies) % len(batches)])
        latencies.append(1000 * (time.perf_counter() - before))
    return {"latencies_ms": latencies, "wall_s": time.perf_counter() - start}


def _files(embed: Embed, paths: Sequence[str], batch: int) -> float:
    """Seconds from image files to vectors, a batch after the other."""
    import cv2

    start = time.perf_counter()
    for i in range(0, len(paths), batch):
        embed([cv2.imread(path) for path in paths[i : i + batch]])  # type: ignore[misc]
    return time.perf_counter() - start


def _peak_mb() -> float:
    """Of this program alone: Linux's ``ru_maxrss`` is inherited from the one that started it."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
