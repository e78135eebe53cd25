"""A graph beside a segment (HNSW by usearch): fewer comparisons, and some neighbours missed.

How many is measured when the graph is built, on the segment itself. Rows that the graph finds are
compared again with the stored vectors, so that distances are those of the exact search.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.retrieval.vectors import Floats, Ints
from sa_runtime.system.extras import require

Method = Literal["exact", "hnsw"]
GRAPH = "graph.usearch"
LEAST_ROWS = 1000
"""A smaller segment is scanned, which takes no time."""
MOST_WANTED = 1000
"""Neighbours; who wants more is given the exact ones."""
RECALL_AT = 10
RECALL_QUERIES = 200
_CONNECTIVITY, _ADD, _SEARCH = 24, 160, 160
_ADDED = 16_384


def require_graph() -> Any:
    """The module that makes and reads graphs.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require("usearch.index", extra="gallery", purpose="the method 'hnsw' of a gallery")


def build_graph(path: Path, part: Part) -> float:
    """Write the graph of some rows.

    Args:
        path: file that is written.
        part: all rows of a segment.

    Returns:
        Recall: of the 10 nearest other rows of 200 of them, the share that the graph finds.
    """
    module = require_graph()
    index = module.Index(
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
    sample = np.random.default_rng(0).permutation(len(part))[:RECALL_QUERIES]
    query = np.asarray(part.vectors[np.sort(sample)], np.float32)
    exact, _ = nearest_rows(query, [part], RECALL_AT + 1)
    found = graph_rows(path, query, RECALL_AT + 1)
    return recall(found, exact, np.sort(sample))


def recall(found: Ints, exact: Ints, own: Ints) -> float:
    """The share of the exact neighbours that was found, a query's own row aside.

    >>> recall(np.array([[0, 1, 3]]), np.array([[0, 1, 2]]), np.array([0]))
    0.5
    """
    hits = wanted = 0
    for mine, others, row in zip(found, exact, own, strict=True):
        nearest = set(others.tolist()) - {int(row)}
        hits += len(nearest & set(mine.tolist()))
        wanted += len(nearest)
    return hits / wanted if wanted else 1.0


def graph_rows(path: Path, query: Floats, k: int) -> Ints:
    """(Q, k) rows that a graph on disk finds, nearest first; -1 where it finds fewer."""
    index = require_graph().Index.restore(str(path), view=True)
    index.expansion_search = max(_SEARCH, 2 * k)
    found = np.full((len(query), k), -1)
    matches = index.search(query, k)
    keys = np.atleast_2d(matches.keys).astype(np.int64)
    counts = np.atleast_1d(getattr(matches, "counts", np.full(len(query), keys.shape[1])))
    for row, count in enumerate(counts.tolist()):
        found[row, :count] = keys[row, :count]
    return found
