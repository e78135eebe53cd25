"""Indexes beside a segment: fewer comparisons, and some neighbours missed.

How many is measured when an index is built, on the segment itself. Rows that it finds are compared
again with the stored vectors, so that distances are those of the exact search.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.retrieval.vectors import Floats, Ints

Method = Literal["exact", "hnsw", "ivfpq"]
METHODS: dict[str, str] = {"hnsw": "sa_runtime.gallery.graph", "ivfpq": "sa_runtime.gallery.ivfpq"}
"""Method -> module, which has the functions of :class:`Kind`; ``exact`` has no index."""
MOST_WANTED = 1000
"""Neighbours; who wants more is given the exact ones."""
RECALL_AT = 10
RECALL_QUERIES = 200


class Kind(Protocol):
    """One kind of index.

    Attributes:
        FILE: its name in the folder of a segment.
        LEAST_ROWS: a smaller segment is scanned, which takes no time.
    """

    FILE: str
    LEAST_ROWS: int

    def check(self) -> None:
        """Raise MissingPackageError where its package is not installed."""

    def build(self, path: Path, part: Part) -> None:
        """Write the index of all rows of a segment."""

    def candidates(self, path: Path, query: Floats, k: int) -> Ints:
        """(Q, at least k) rows that may be the nearest; -1 where it finds fewer."""


def kind_of(method: str) -> Kind:
    """The module of a method other than ``exact``."""
    kind: Kind = importlib.import_module(METHODS[method])
    return kind


def build_index(method: Method, folder: Path, part: Part) -> tuple[str, float] | None:
    """Write the index of a segment.

    Args:
        method: of the gallery.
        folder: of the segment.
        part: all its rows.

    Returns:
        Name of the file, and recall: of the 10 nearest other rows of 200 of them, the share that
        the index finds. ``None`` where a scan serves.
    """
    if method == "exact" or len(part) < kind_of(method).LEAST_ROWS:
        return None
    kind = kind_of(method)
    kind.build(folder / kind.FILE, part)
    sample = np.sort(np.random.default_rng(0).permutation(len(part))[:RECALL_QUERIES])
    query = np.asarray(part.vectors[sample], np.float32)
    exact, _ = nearest_rows(query, [part], RECALL_AT + 1)
    found = index_rows(method, folder, query, RECALL_AT + 1, part)[0]
    return kind.FILE, recall(found, exact, sample)


def index_rows(
    method: Method, folder: Path, query: Floats, k: int, part: Part
) -> tuple[Ints, Floats]:
    """(Q, k) rows that an index finds, nearest first, and their exact distances.

    -1 and infinite where it finds fewer.
    """
    kind = kind_of(method)
    candidates = kind.candidates(folder / kind.FILE, query, k)
    index = np.full((len(query), k), -1)
    distance = np.full((len(query), k), np.inf, np.float32)
    for number, found in enumerate(candidates):
        # Of equal distances the lower row comes first.
        rows = np.sort(found[found >= 0])
        some = np.asarray(part.vectors[rows], np.float32)
        norms = np.einsum("nd,nd->n", some, some)
        one = Part(vectors=some, norms=norms, total=some.sum(axis=0, dtype=float))
        order, exact = nearest_rows(query[number : number + 1], [one], k)
        index[number, : order.shape[1]] = rows[order[0]]
        distance[number, : order.shape[1]] = exact[0]
    return index, distance


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
