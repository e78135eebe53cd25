"""Retrieval figures and re-ranking against a peer's code and against the matrix product alone.

    python benchmarks/metrics_peers.py --peer FOLDER --out benchmarks/results/metrics_peers.json

``--peer`` names a folder with files of torchreid 0.2.5: ``rerank.py``, ``distance.py``, and
``rank_cy`` of ``rank_cylib``, built with Cython for this Python; without it the peer is left out.
Vectors of people around random centres, and distances, are drawn at the sizes of Market-1501
(3,368 x 15,913, 750 people) and MSMT17 (11,659 x 82,161, 3,060 people). Every part of ``--only``
runs in a process of its own, so that its memory is its own (Linux only): ``given`` counts with
distances that are there, ``2048`` and ``12288`` evaluate vectors of so many numbers, ``rerank`` and
``torchreid_rerank`` re-rank, ``msmt17`` and ``msmt17_rerank`` are the larger size.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_distances, evaluate_vectors
from sa_runtime.retrieval.rerank import Reranking
from sa_runtime.retrieval.vectors import AnyFloats
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

SIZES = {"market": (3368, 15913, 750, 6), "msmt17": (11659, 82161, 3060, 15)}
NOISE = 4.5
PARTS = ("given", "2048", "12288", "rerank", "torchreid_rerank", "msmt17", "msmt17_rerank")


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


def memory_mib(field: str) -> float:
    """A field of this process's status: VmRSS now, VmHWM at most."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def drawn(size: str, dim: int) -> tuple[NDArray[np.float32], Labels, NDArray[np.float32], Labels]:
    """Queries and gallery of unit length, with who is on them."""
    queries, gallery, people, cameras = SIZES[size]
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((people + 1, dim), dtype=np.float32)
    sides: list[Any] = []
    for count in (queries, gallery):
        known = labels(rng, count, people, cameras)
        vectors = rng.standard_normal((count, dim), dtype=np.float32)
        for start in range(0, count, 1024):
            some = vectors[start : start + 1024]
            some *= np.float32(NOISE)
            some += centres[known.person[start : start + 1024]]
            some /= np.linalg.norm(some, axis=1, keepdims=True)
        sides += [vectors, known]
    return sides[0], sides[1], sides[2], sides[3]


def product(one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    """The matrix product alone, in blocks."""
    for start in range(0, len(one), 512):
        np.matmul(one[start : start + 512], other.T)


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
    query, q, gallery, g = drawn(size, dim)
    alone, alone_busy, _ = seconds(lambda: product(query, gallery), times)
    Path("/proc/self/clear_refs").write_text("5")  # restarts the high-water mark
    before = memory_mib("VmRSS")
    ours, busy, result = seconds(lambda: evaluate_vectors(query, q, gallery, g), times)
    return {
        "size": size,
        "dim": dim,
        "mAP": result.mAP,
        "product_s": alone,
        "ours_s": ours,
        "of_product": ours / alone,
        "of_product_cpu": busy / alone_busy,
        "vectors_mib": (query.nbytes + gallery.nbytes) / 2**20,
        "beyond_vectors_mib": memory_mib("VmHWM") - before,
        "peak_mib": memory_mib("VmHWM"),
    }


def reranked(size: str, dim: int) -> dict[str, Any]:
    query, q, gallery, g = drawn(size, dim)
    found: dict[str, Any] = {"size": size, "dim": dim}
    if size == "market":
        everyone = np.concatenate([query, gallery])
        alone, _, _ = seconds(lambda: product(everyone, everyone), 1)
        found["products_s"] = alone + seconds(lambda: product(query, gallery), 1)[0]
        del everyone
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mib("VmRSS")
    settings = Reranking()
    found["ours_s"], found["ours_cpu_s"], result = seconds(
        lambda: evaluate_vectors(query, q, gallery, g, rerank=settings), 1
    )
    if "products_s" in found:
        found["of_products"] = found["ours_s"] / found["products_s"]
    return found | {
        "mAP": result.mAP,
        "beyond_vectors_mib": memory_mib("VmHWM") - before,
        "peak_mib": memory_mib("VmHWM"),
    }


def torchreid_reranked(peer: Path | None, dim: int) -> dict[str, Any]:
    """What its engine does with ``rerank``: three matrices of distances, then its function."""
    import torch

    if peer is None:
        return {}
    sys.path.insert(0, str(peer))
    distance = importlib.import_module("distance").compute_distance_matrix
    re_ranking = importlib.import_module("rerank").re_ranking
    query, q, gallery, g = drawn("market", dim)
    sides = torch.from_numpy(query), torch.from_numpy(gallery)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mib("VmRSS")

    def work() -> NDArray[np.float32]:
        apart, queries, others = (
            distance(sides[one], sides[two]).numpy() for one, two in ((0, 1), (0, 0), (1, 1))
        )
        final: NDArray[np.float32] = re_ranking(apart, queries, others)
        return final

    theirs, busy, final = seconds(work, 1)
    peak = memory_mib("VmHWM")
    result = evaluate_distances(Given(final), q, g)
    return {
        "torchreid_s": theirs,
        "torchreid_cpu_s": busy,
        "mAP": result.mAP,
        "beyond_vectors_mib": peak - before,
    }


def measured(part: str, peer: Path | None) -> dict[str, Any]:
    """One part."""
    if part == "given":
        return given_distances(peer)
    if part == "torchreid_rerank":
        return torchreid_reranked(peer, 2048)
    size, _, kind = part.rpartition("_")
    if kind == "rerank":
        return reranked(size or "market", 2048)
    return features("msmt17", 2048, 1) if part == "msmt17" else features("market", int(part), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    if len(chosen.only) > 1:
        for part in chosen.only:
            words = [sys.executable, __file__, "--only", part]
            words += ["--peer", str(chosen.peer)] if chosen.peer else []
            words += ["--out", str(chosen.out)] if chosen.out else []
            subprocess.run(words, check=True)
        return
    (part,) = chosen.only
    found = measured(part, chosen.peer)
    print(part, json.dumps(found), flush=True)
    if chosen.out is not None:
        stamp = {
            "environment": dataclasses.asdict(this_environment(commit=True)),
            "date": datetime.now(UTC).date().isoformat(),
        }
        before = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        with atomic_path(chosen.out) as temporary:
            temporary.write_text(json.dumps({**before, part: found, **stamp}, indent=2) + "\n")


if __name__ == "__main__":
    main()
