"""Time and memory of evaluation and re-ranking at the size of Market-1501.

Run: ``python benchmarks/evaluation.py [--out FILE.json]`` (some two minutes on two cores).

The vectors are drawn: 750 people around random centres, of unit length. Memory is what the process
grows by over the vectors while a case runs (Linux only). The loop that the figures are compared to
is what reference code does: a whole matrix of distances, then for each query an argsort and
scikit-learn's average precision; its figures must be equal.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import CONVENTIONS, evaluate_vectors
from sa_runtime.retrieval.rerank import Reranking
from sa_runtime.system.environment import cores
from sa_runtime.system.files import atomic_path

PEOPLE, CAMERAS, NOISE = 750, 6, 4.5
Vectors = NDArray[Any]


def draw(count: int, centres: Vectors, rng: np.random.Generator) -> tuple[Vectors, Labels]:
    """Unit vectors of people seen by cameras."""
    person = rng.integers(0, PEOPLE, count)
    vectors = rng.standard_normal((count, centres.shape[1]), dtype=np.float32)
    vectors *= np.float32(NOISE)
    vectors += centres[person]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, Labels(person=person + 1, camera=rng.integers(0, CAMERAS, count))


def product(query: Vectors, gallery: Vectors) -> None:
    """The matrix product alone, which no exact evaluation can do without."""
    for start in range(0, len(query), 1024):
        query[start : start + 1024] @ gallery.T


def loop(query: Vectors, known: Labels, gallery: Vectors, others: Labels) -> dict[str, float]:
    """Query by query on a whole matrix of distances."""
    distance = (query**2).sum(axis=1)[:, None] + (gallery**2).sum(axis=1) - 2 * (query @ gallery.T)
    precisions, first = [], []
    for i, row in enumerate(distance):
        order = np.argsort(row)
        person, camera = others.person[order], others.camera[order]
        keep = (person != known.person[i]) | (camera != known.camera[i])
        right = (person == known.person[i])[keep]
        if right.any():
            precisions.append(average_precision_score(right, -row[order][keep]))
            first.append(right.argmax() == 0)
    return {"mAP": float(np.mean(precisions)), "rank1": float(np.mean(first))}


def memory_kib(field: str) -> int:
    """A field of this process's status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; expected Linux")


def measure(work: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Best time of some runs, and the largest growth of the process in them."""
    seconds, growth, figures = [], 0, None
    for _ in range(repeats):
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory of the last run would hide this one's
        Path("/proc/self/clear_refs").write_text("5")  # restarts the high-water mark
        before = memory_kib("VmRSS")
        started = time.perf_counter()
        figures = work()
        seconds.append(time.perf_counter() - started)
        growth = max(growth, memory_kib("VmHWM") - before)
    found = {"seconds": min(seconds), "runs": repeats, "peak_mib": growth / 1024}
    if figures is not None and not isinstance(figures, dict):
        figures = {"mAP": figures.mAP, "rank1": figures.rank(1)}
    return {**found, **(figures or {})}


def cases(queries: int, size: int, dim: int, folder: Path) -> dict[str, tuple[Any, int]]:
    """Name -> (what to run, how often)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((PEOPLE, dim), dtype=np.float32)
    query, known = draw(queries, centres, rng)
    gallery, others = draw(size, centres, rng)
    disk = np.memmap(folder / "gallery", np.float16, "w+", shape=gallery.shape)
    disk[:] = gallery
    half = query.astype(np.float16)
    return {
        "matrix product alone": (lambda: product(query, gallery), 3),
        "evaluate": (lambda: evaluate_vectors(query, known, gallery, others), 3),
        "evaluate, all CMC conventions": (
            lambda: evaluate_vectors(query, known, gallery, others, conventions=CONVENTIONS),
            3,
        ),
        "evaluate, float16 gallery on disk": (
            lambda: evaluate_vectors(half, known, disk, others),
            3,
        ),
        "loop over queries": (lambda: loop(query, known, gallery, others), 1),
        "evaluate, re-ranked": (
            lambda: evaluate_vectors(query, known, gallery, others, rerank=Reranking()),
            1,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dim", type=int, default=3072)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sizes = {"queries": arguments.queries, "gallery": arguments.gallery, "dim": arguments.dim}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        todo = cases(arguments.queries, arguments.gallery, arguments.dim, Path(folder))
        for name, (work, repeats) in todo.items():
            results[name] = measure(work, repeats)
            figures = "  ".join(f"{key} {value:.4g}" for key, value in results[name].items())
            print(f"{name:36}{figures}", flush=True)
    difference = abs(results["evaluate"]["mAP"] - results["loop over queries"]["mAP"])
    if difference > 1e-6:
        raise RuntimeError(f"evaluate and the loop differ by {difference} in mAP")
    report = {
        "schema": "sa-deploy.benchmarks.evaluation/1",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": cores(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "sizes": sizes,
        "results": results,
    }
    if arguments.out is not None:
        with atomic_path(arguments.out) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
