"""HNSW by usearch: a graph of near rows, which a search follows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.gallery.scan import Part
from sa_runtime.retrieval.vectors import Floats, Ints
from sa_runtime.system.extras import require

FILE = "graph.usearch"
LEAST_ROWS = 1000
_CONNECTIVITY, _ADD, _SEARCH = 24, 160, 160
_SLOW = ("auto", "serial")
"""Kernels of usearch where the processor has no instructions for a type."""


def check() -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    _usearch()


def new(part: Part, rows: Ints) -> Graph:
    """See :class:`sa_runtime.gallery.approximate.Kind`; it learns nothing."""
    graph = _empty(part.vectors.shape[1], "bf16")
    if graph.hardware_acceleration in _SLOW:
        graph = _empty(part.vectors.shape[1], "f16")
    return Graph(graph)


def _empty(dim: int, dtype: str) -> Any:
    return _usearch().Index(
        ndim=dim,
        metric="l2sq",
        dtype=dtype,
        connectivity=_CONNECTIVITY,
        expansion_add=_ADD,
        expansion_search=_SEARCH,
    )


def opened(path: Path) -> Graph:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    return Graph(_usearch().Index.restore(str(path), view=True))


class Graph:
    """See :class:`sa_runtime.gallery.approximate.Index`.

    Args:
        graph: of usearch.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        # Two searches at once would share the room that usearch gives each of its own threads.
        self._one_at_a_time = threading.Lock()

    def add(self, rows: Ints, vectors: Floats) -> None:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        self._graph.add(rows.astype(np.uint64), vectors)

    def candidates(self, query: Floats, k: int) -> Ints:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        found = np.full((len(query), k), -1)
        with self._one_at_a_time:
            self._graph.expansion_search = max(_SEARCH, 2 * k)
            matches = self._graph.search(query, k)
        keys = np.atleast_2d(matches.keys).astype(np.int64)
        counts = np.atleast_1d(getattr(matches, "counts", np.full(len(query), keys.shape[1])))
        for row, count in enumerate(counts.tolist()):
            found[row, :count] = keys[row, :count]
        return found

    def save(self, path: Path) -> None:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        self._graph.save(str(path))


def _usearch() -> Any:
    return require("usearch.index", extra="gallery", purpose="the method 'hnsw' of a gallery")
