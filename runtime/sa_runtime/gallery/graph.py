"""HNSW by usearch: a graph of near rows, which a search follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.gallery.scan import Part
from sa_runtime.retrieval.vectors import Floats, Ints
from sa_runtime.system.extras import require

FILE = "graph.usearch"
LEAST_ROWS = 1000
_CONNECTIVITY, _ADD, _SEARCH = 24, 160, 160
_ADDED = 16_384


def check() -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    _usearch()


def build(path: Path, part: Part) -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    index = _usearch().Index(
        ndim=part.vectors.shape[1],
        metric="l2sq",
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_ADD,
        expansion_search=_SEARCH,
    )
    for start in range(0, len(part), _ADDED):
        rows = np.asarray(part.vectors[start : start + _ADDED], np.float32)
        index.add(np.arange(start, start + len(rows), dtype=np.uint64), rows)
    index.save(str(path))


def candidates(path: Path, query: Floats, k: int) -> Ints:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    index = _usearch().Index.restore(str(path), view=True)
    index.expansion_search = max(_SEARCH, 2 * k)
    found = np.full((len(query), k), -1)
    matches = index.search(query, k)
    keys = np.atleast_2d(matches.keys).astype(np.int64)
    counts = np.atleast_1d(getattr(matches, "counts", np.full(len(query), keys.shape[1])))
    for row, count in enumerate(counts.tolist()):
        found[row, :count] = keys[row, :count]
    return found


def _usearch() -> Any:
    return require("usearch.index", extra="gallery", purpose="the method 'hnsw' of a gallery")
