"""Retrieval figures against a peer's compiled loop and against the matrix product alone.

    python benchmarks/metrics_peers.py --peer FOLDER --out benchmarks/results/metrics_peers.json

``--peer`` names the folder that holds torchreid's ``rank_cy`` (``torchreid/metrics/rank_cylib``),
built with Cython for this Python; without it the peer is left out. Distances and vectors are drawn
at the sizes of Market-1501 (3,368 x 15,913, 750 people) and MSMT17 (11,659 x 82,161, 3,060 people).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.retrieval.metrics import Labels, evaluate_distances, evaluate_vectors
from sa_runtime.retrieval.vectors import AnyFloats
from sa_runtime.system.environment import this_environment

SIZES = {"market": (3368, 15913, 750, 6), "msmt17": (11659, 82161, 3060, 15)}


class Given:
    """Distances that are there already."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        return self._matrix.shape[0], self._matrix.shape[1]

    def rows(self, memory_bytes: int = 0) -> Iterator[AnyFloats]:
        for row in self._matrix:
            yield row.copy()

    def row(self, index: int) -> AnyFloats:
        copy: AnyFloats = self._matrix[index].copy()
        return copy


def labels(rng: np.random.Generator, count: int, people: int, cameras: int) -> Labels:
    return Labels(person=rng.integers(1, people + 1, count), camera=rng.integers(0, cameras, count))


def seconds(work: Callable[[], Any], times: int) -> tuple[float, float, Any]:
    """Wall and processor seconds of the fastest turn; where others work, the latter compare."""
    wall, busy, result = np.inf, np.inf, None
    for _ in range(times):
        began, used = time.perf_counter(), time.process_time()
        result = work()
        wall = min(wall, time.perf_counter() - began)
        busy = min(busy, time.process_time() - used)
    return wall, busy, result


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def given_distances(peer: Path | None) -> dict[str, Any]:
    queries, gallery, people, cameras = SIZES["market"]
    rng = np.random.default_rng(0)
    q, g = labels(rng, queries, people, cameras), labels(rng, gallery, people, cameras)
    matrix = rng.random((queries, gallery), dtype=np.float32)
    matrix -= 0.4 * (q.person[:, None] == g.person).astype(np.float32)
    ours, busy, result = seconds(lambda: evaluate_distances(Given(matrix), q, g), 3)
    found = {"ours_s": ours, "ours_cpu_s": busy, "mAP": result.mAP}
    if peer is not None:
        sys.path.insert(0, str(peer))
        cython = importlib.import_module("rank_cy").evaluate_cy
        theirs, their_busy, (_, their_map) = seconds(
            lambda: cython(matrix, q.person, g.person, q.camera, g.camera, 50), 2
        )
        found |= {
            "torchreid_s": theirs,
            "torchreid_cpu_s": their_busy,
            "torchreid_mAP": float(their_map),
            "times": theirs / ours,
            "times_cpu": their_busy / busy,
        }
    return found


def features(size: str, dim: int, times: int) -> dict[str, Any]:
    queries, gallery, people, cameras = SIZES[size]
    rng = np.random.default_rng(0)
    q, g = labels(rng, queries, people, cameras), labels(rng, gallery, people, cameras)
    sides = []
    for count in (queries, gallery):
        vectors = rng.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sides.append(vectors)
    before = peak_mib()

    def product() -> None:
        for start in range(0, queries, 512):
            np.matmul(sides[0][start : start + 512], sides[1].T)

    alone, alone_busy, _ = seconds(product, times)
    ours, busy, _ = seconds(lambda: evaluate_vectors(sides[0], q, sides[1], g), times)
    return {
        "size": size,
        "dim": dim,
        "product_s": alone,
        "ours_s": ours,
        "of_product": ours / alone,
        "of_product_cpu": busy / alone_busy,
        "peak_mib": peak_mib(),
        "beyond_vectors_mib": peak_mib() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--only", nargs="+", default=["given", "2048", "12288", "msmt17"])
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    for part in chosen.only:
        if part == "given":
            found[part] = given_distances(chosen.peer)
        elif part == "msmt17":
            found[part] = features("msmt17", 2048, 1)
        else:
            found[part] = features("market", int(part), 2)
        print(part, json.dumps(found[part]), flush=True)
    found["environment"] = dataclasses.asdict(this_environment(commit=True))
    found["date"] = datetime.now(UTC).date().isoformat()
    if chosen.out is not None:
        before = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        chosen.out.write_text(json.dumps({**before, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
