"""Indexes beside a segment: fewer comparisons, and some neighbours missed.

How many is measured when an index is built, with tracks of the segment that are not in the index
yet: a row that is in it finds its neighbours by its own links, more of them than a stranger does.
Rows that an index finds are compared again with the stored vectors, so that distances are those of
the exact search.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from sa_runtime.gallery.scan import Part, distances_of, nearest_rows
from sa_runtime.retrieval.vectors import Floats, Ints

Method = Literal["exact", "hnsw", "ivfpq"]
METHODS: dict[str, str] = {"hnsw": "sa_runtime.gallery.graph", "ivfpq": "sa_runtime.gallery.ivfpq"}
"""Method -> module, which has the functions of :class:`Kind`; ``exact`` has no index."""
MOST_WANTED = 1000
"""Neighbours; who wants more is given the exact ones."""
OnIndex = Callable[[int, int], None]
"""Called while an index is built: rows that are in it, and all rows that come into it."""
RECALL_AT = 10
RECALL_QUERIES = 400
_HELD_OUT = 10
"""One row in so many at most is held out, so that nearly the whole index is measured."""
_ADDED = 16_384
"""Rows that are added at a time."""
_COMPARED = 2**21
"""Numbers that are compared again at a time."""


class Index(Protocol):
    """Some rows of a segment, to be searched; threads may search at once."""

    def add(self, rows: Ints, vectors: Floats) -> None:
        """Add (N, D) vectors by the numbers of their rows."""

    def candidates(self, query: Floats, k: int) -> Ints:
        """(Q, at least k) rows that may be the nearest; -1 where it finds fewer."""

    def save(self, path: Path) -> None:
        """Write it to a file."""


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

    def new(self, part: Part, rows: Ints) -> Index:
        """An index without rows, which may learn from these ones of a segment."""

    def opened(self, path: Path) -> Index:
        """What was saved."""


def kind_of(method: str) -> Kind:
    """The module of a method other than ``exact``."""
    kind: Kind = importlib.import_module(METHODS[method])
    return kind


def build_index(
    method: Method,
    folder: Path,
    part: Part,
    tracks: Callable[[], Ints],
    on_index: OnIndex | None = None,
) -> tuple[str, float] | None:
    """Write the index of a segment.

    Args:
        method: of the gallery.
        folder: of the segment.
        part: all its rows.
        tracks: gives (N,) the number of each row's track.
        on_index: told how far it is.

    Returns:
        Name of the file, and recall: of the 10 rows that are nearest to a row whose track is not in
        the index, the share that it finds. ``None`` where a scan serves.
    """
    if method == "exact" or len(part) < kind_of(method).LEAST_ROWS:
        return None
    kind = kind_of(method)
    rng = np.random.default_rng(0)
    held = held_out(tracks(), rng)
    others = np.setdiff1d(np.arange(len(part)), held)
    index = kind.new(part, others)
    _add(index, part, others, on_index)
    query = part.vectors[np.sort(rng.permutation(held)[:RECALL_QUERIES])].astype(np.float32)
    exact, _ = nearest_rows(query, [dataclasses.replace(part, keep=others)], RECALL_AT)
    found = index_rows(index, query, RECALL_AT, part)[0]
    _add(index, part, held)
    index.save(folder / kind.FILE)
    return kind.FILE, recall(found, exact)


def held_out(tracks: Ints, rng: np.random.Generator) -> Ints:
    """Rows that are searched for before they are added: of whole tracks, where these are short.

    Args:
        tracks: (N,) number of each row's track.
        rng: draws them.

    Returns:
        Ascending rows, at most a tenth of them.

    >>> held_out(np.repeat([0, 1, 2, 3], [9, 9, 1, 1]), np.random.default_rng(0)).tolist()
    [18, 19]
    """
    most, count = len(tracks) // _HELD_OUT, np.bincount(tracks)
    drawn = rng.permutation(np.flatnonzero((count > 0) & (count <= most)))[:RECALL_QUERIES]
    drawn = drawn[np.cumsum(count[drawn]) <= most]
    if len(drawn):
        return np.flatnonzero(np.isin(tracks, drawn))
    return np.sort(rng.permutation(len(tracks))[: min(most, RECALL_QUERIES)])


def _add(index: Index, part: Part, rows: Ints, on_index: OnIndex | None = None) -> None:
    for start in range(0, len(rows), _ADDED):
        if on_index is not None:
            on_index(start, len(part))
        some = rows[start : start + _ADDED]
        index.add(some, np.asarray(part.vectors[some], np.float32))


def index_rows(index: Index, query: Floats, k: int, part: Part) -> tuple[Ints, Floats]:
    """(Q, k) rows that an index finds, nearest first, and their exact distances.

    -1 and infinite where it finds fewer.
    """
    found = index.candidates(query, k)
    some = max(1, _COMPARED // max(1, found.shape[1] * query.shape[1]))
    nearest = np.full((len(query), k), -1)
    distance = np.full((len(query), k), np.inf, np.float32)
    for start in range(0, len(query), some):
        # Of equal distances the lower row comes first; nobody comes last.
        rows = np.sort(np.where(found < 0, len(part), found)[start : start + some], axis=1)
        there = rows < len(part)
        vectors = np.asarray(part.vectors[np.where(there, rows, 0)], np.float32)
        far = np.where(there, distances_of(query[start : start + some], vectors), np.inf)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        block = slice(start, start + some), slice(0, order.shape[1])
        chosen = np.take_along_axis(rows, order, axis=1)
        nearest[block] = np.where(chosen < len(part), chosen, -1)
        distance[block] = np.take_along_axis(far, order, axis=1)
    return nearest, distance


def recall(found: Ints, exact: Ints) -> float:
    """The share of the exact neighbours that was found.

    >>> recall(np.array([[1, 3]]), np.array([[1, 2]]))
    0.5
    """
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return sum(len({*mine} & {*others}) for mine, others in pairs) / exact.size
