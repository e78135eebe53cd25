"""Exact nearest neighbours among vectors on disk: every row is compared, none is missed.

A product in float32 says which rows may be among the nearest; how far it can be wrong is known, so
that no row which is nearer is passed over. The few that may be are compared again without rounding
that depends on an order: their squared differences are whole multiples of one small number, whose
sum is exact. So a distance depends on its two vectors alone, equal vectors have equal distances,
and of equal distances the lower row comes first, as in :func:`sa_runtime.retrieval.search.top_k`.

Shape suffixes: Q queries, N rows of a part, W rows of a tile, D dimensions, H hits, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sa_runtime.retrieval.distance import MEMORY_BYTES
from sa_runtime.retrieval.vectors import AnyFloats, Floats, Ints, Vectors

_QUERIES = 1024
_ROUNDING = 2.0**-24
_HITS = 4096
"""Pairs compared again at a time."""
_COLLAPSED = 7 / 8
"""From this mean cosine on the mean is taken off first: it would hide what tells vectors apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Rows of one file.

    Attributes:
        vectors: (N, D) float16 or float32, on disk or in memory.
        norms: (N,) float32 squared lengths.
        total: (D,) float64 sum of the rows.
        keep: (M,) ascending rows that are searched; all where it is None.
    """

    vectors: Vectors
    norms: Floats
    total: NDArray[np.float64]
    keep: Ints | None = None

    def __len__(self) -> int:
        return len(self.vectors) if self.keep is None else len(self.keep)


def nearest_rows(
    query: Floats, parts: Sequence[Part], k: int, *, memory_bytes: int = MEMORY_BYTES
) -> tuple[Ints, Floats]:
    """The ``k`` nearest rows of every query.

    Args:
        query: (Q, D) finite float32.
        parts: of D dimensions each; their rows are numbered one part after the other, those that
            are not searched as well.
        k: neighbours wanted, at least 1; all where fewer are searched.
        memory_bytes: working memory, beside the result.

    Returns:
        (Q, k) rows and (Q, k) float32 squared Euclidean distances, nearest first.

    >>> rows = np.array([[0, 0], [3, 0], [1, 0], [1, 0]], np.float32)
    >>> norms, total = (rows ** 2).sum(axis=1), rows.sum(axis=0, dtype=float)
    >>> part = Part(vectors=rows, norms=norms, total=total)
    >>> index, distance = nearest_rows(np.zeros((1, 2), np.float32), [part], 3)
    >>> index.tolist(), distance.tolist()
    ([[0, 2, 3]], [[0.0, 1.0, 1.0]])
    """
    parts = list(parts)
    k = min(k, sum(map(len, parts)))
    index = np.empty((len(query), k), np.int64)
    distance = np.empty((len(query), k), np.float32)
    if not k or not len(query):
        return index, distance
    longest = max(float(part.norms.max(initial=0)) for part in parts)
    centre = _centre(parts)
    for start in range(0, len(query), _QUERIES):
        block = slice(start, start + _QUERIES)
        search = _Search(query[block], k, longest, centre)
        for first, rows, norms in _tiles(parts, search.width(memory_bytes)):
            search.compare(first, rows, norms)
        index[block], distance[block] = search.finish()
    return index, distance


def _tiles(parts: Sequence[Part], width: int) -> Iterator[tuple[Ints, Floats, Floats]]:
    """Row numbers, vectors and squared lengths of what is searched, tile after tile."""
    offset = 0
    for part in parts:
        for start in range(0, len(part), width):
            stop = min(start + width, len(part))
            if part.keep is None:
                numbers = np.arange(start, stop)
                vectors, norms = part.vectors[start:stop], part.norms[start:stop]
            else:
                numbers = part.keep[start:stop]
                vectors, norms = part.vectors[numbers], part.norms[numbers]
            # Views of a file would be read from it again in every pass.
            yield numbers + offset, np.asarray(vectors, np.float32), np.asarray(norms)
        offset += len(part.vectors)


class _Search:
    """The nearest rows so far of a block of queries.

    Args:
        query: (Q, D).
        k: neighbours.
        longest: largest squared length of a row.
        centre: (D,) what is taken off queries and rows first, if anything.
    """

    def __init__(self, query: Floats, k: int, longest: float, centre: Floats | None) -> None:
        self._query, self._k, self._centre = query, k, centre
        self._moved = query if centre is None else query - centre
        self._doubled = np.multiply(self._moved, np.float32(-2))
        # float64, so that what is subtracted from a limit is not rounded itself.
        self._norms = np.einsum("qd,qd->q", self._moved, self._moved, dtype=np.float64)
        self._unit = _unit(query, longest)
        self._best_index = np.full((len(query), k), np.iinfo(np.int64).max)
        self._best = np.full((len(query), k), np.inf)
        self._product = np.empty(0, np.float32)

    def width(self, memory_bytes: int) -> int:
        """Rows of a tile."""
        # Product and mask of every query, the tile itself and what its centring takes.
        row_bytes = 5 * len(self._query) + 8 * self._query.shape[1]
        rest = memory_bytes - 16 * _HITS * self._query.shape[1]
        return int(np.clip(rest // row_bytes, 64, 8192))

    def compare(self, numbers: Ints, rows: Floats, norms: Floats) -> None:
        """Take a tile's rows among the nearest where they are.

        Args:
            numbers: (W,) ascending numbers of the rows.
            rows: (W, D).
            norms: (W,) their squared lengths.
        """
        moved = rows
        if self._centre is not None:
            moved = rows - self._centre
            norms = np.einsum("wd,wd->w", moved, moved)
        size = len(self._query) * len(rows)
        if len(self._product) < size:
            self._product = np.empty(size, np.float32)
        # Squared distances, less the query's own squared length.
        near = self._product[:size].reshape(len(self._query), len(rows))
        np.matmul(self._doubled, moved.T, out=near)
        near += norms
        margin = self._margin(float(norms.max()))
        kth = self._best[:, -1]
        limit = kth - self._norms + margin
        if not np.isfinite(kth).all() and len(rows) > self._k:
            mine = np.partition(near, self._k - 1, axis=1)[:, self._k - 1].astype(np.float64)
            limit = np.minimum(limit, mine + 2 * margin)
        # Rounded up, so that nothing at the limit is lost.
        ceiling = np.nextafter(limit.astype(np.float32), np.float32(np.inf))
        hits = np.flatnonzero(near <= ceiling[:, None])  # several times faster than in two axes
        if len(hits):
            query, row = np.divmod(hits, len(rows))
            exact = self._exactly(query, rows, row)
            _keep_nearest(self._best_index, self._best, query, numbers[row], exact)

    def finish(self) -> tuple[Ints, Floats]:
        """(Q, k) rows and distances, nearest first."""
        return self._best_index, self._best.astype(np.float32)

    def _margin(self, longest: float) -> NDArray[np.float64]:
        """(Q,) how far a float32 distance may be off.

        A sum of D products in float32, in any order, is off by at most D roundings of the product
        of the lengths; the rest covers the squared lengths and the two sums.
        """
        dim = self._query.shape[1]
        length = np.sqrt(self._norms)
        products = 2 * (dim + 4) * _ROUNDING * length * np.sqrt(longest)
        squares = (dim + 4) * _ROUNDING * longest + 4 * _ROUNDING * self._norms
        margin: NDArray[np.float64] = 1.01 * (products + squares)
        return margin

    def _exactly(self, query: Ints, rows: Floats, row: Ints) -> NDArray[np.float64]:
        """(H,) squared distances of some pairs."""
        found = np.empty(len(query))
        for start in range(0, len(query), _HITS):
            part = slice(start, start + _HITS)
            difference = rows[row[part]].astype(np.float64)
            difference -= self._query[query[part]]
            found[part] = _squares(difference, self._unit)
        return found


def distances_of(query: Floats, rows: Floats) -> NDArray[np.float64]:
    """Distances as :func:`nearest_rows` gives them, of some rows of each query.

    Args:
        query: (Q, D) of about unit length.
        rows: (Q, H, D) likewise.

    Returns:
        (Q, H), which round to float32 as those do.
    """
    longest = float(np.einsum("qhd,qhd->qh", rows, rows).max(initial=0))
    difference = rows.astype(np.float64)
    difference -= query[:, None]
    return _squares(difference, _unit(query, longest))


def _unit(query: Floats, longest: float) -> float:
    """What squared differences are multiples of, so that their sum is exact.

    A sum stays below 2**52 of these units, which are the same for all vectors of about unit length.

    Args:
        query: (Q, D).
        longest: largest squared length of a row.
    """
    lengths = np.sqrt(np.einsum("qd,qd->q", query, query, dtype=np.float64))
    span = (float(lengths.max(initial=0)) + np.sqrt(longest)) ** 2
    unit: float = 2.0 ** (np.ceil(np.log2(max(span, 8.0))) - 52)
    return unit


def _squares(difference: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """Sums over the last axis of squares, in whole units; the argument is overwritten."""
    difference *= difference
    difference /= unit
    exact: NDArray[np.float64] = np.rint(difference, out=difference).sum(axis=-1) * unit
    return exact


def _centre(parts: Sequence[Part]) -> Floats | None:
    """(D,) the mean row, where the rows crowd around one direction."""
    count = sum(len(part.vectors) for part in parts)
    mean = np.sum([part.total for part in parts], axis=0) / count
    squares = sum(float(part.norms.sum(dtype=np.float64)) for part in parts) / count
    return mean.astype(np.float32) if mean @ mean > _COLLAPSED * squares else None


def _keep_nearest(
    index: Ints, distance: AnyFloats, query: Ints, number: Ints, apart: AnyFloats
) -> None:
    """Put rows that were found among the nearest of their queries; of equal ones the lower row.

    Args:
        index: (Q, k) rows so far, changed in place.
        distance: (Q, k) their distances, likewise.
        query: (H,) which query each row was found for.
        number: (H,) rows.
        apart: (H,) their distances.
    """
    k = index.shape[1]
    touched, inverse = np.unique(query, return_inverse=True)
    owner = np.concatenate([np.repeat(np.arange(len(touched)), k), inverse])
    numbers = np.concatenate([index[touched].ravel(), number])
    distances = np.concatenate([distance[touched].ravel(), apart])
    order = np.lexsort((numbers, distances, owner))
    starts = np.searchsorted(owner[order], np.arange(len(touched)))
    kept = order[starts[:, None] + np.arange(k)]
    index[touched] = numbers[kept]
    distance[touched] = distances[kept]
