"""Distances between vectors in blocks of bounded size, and nearest-neighbour search.

A full matrix of distances is never kept: whoever needs it takes a block of query rows after
another. Shape suffixes: Q queries, G gallery rows, B rows of a block, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError

Metric = Literal["euclidean", "cosine"]
"""``euclidean``: the squared Euclidean distance; ``cosine``: one minus the cosine. Both rank unit
vectors alike."""
Vectors = NDArray[np.floating[Any]]
"""(N, D) float16, float32 or float64, :class:`numpy.memmap` included; worked on as float32."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MEMORY_BYTES = 128 * 2**20
"""Working memory of one pass over the distances, if the caller does not say otherwise."""
_SEARCH_ROWS = 512


class VectorRows:
    """Rows of one array, or of several stacked ones, as float32: read in slices, never as a whole.

    Args:
        vectors: (N, D) of a float type.
        name: what the vectors are, for messages.
        keep: (M,) rows to keep, in this order; all where it is None.

    Attributes:
        norms: (M,) float32 squared lengths.

    Raises:
        InputError: not a matrix of floats, or a row that is not finite.

    >>> rows = VectorRows(np.eye(3, dtype=np.float16), name="query", keep=np.array([2, 0]))
    >>> rows.shape, rows.read(0, 1).tolist(), rows.take(np.array([1])).tolist()
    ((2, 3), [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    """

    def __init__(self, vectors: Vectors, *, name: str, keep: Ints | None = None) -> None:
        if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
            raise InputError(
                f"{name} vectors of shape {vectors.shape} {vectors.dtype}: expected (N, D) floats, "
                "one row for each image"
            )
        self._parts: list[tuple[Vectors, Ints | None]] = [(vectors, keep)]
        self._starts = [0, len(vectors) if keep is None else len(keep)]
        self.norms = self._squared_lengths(name)

    @classmethod
    def stacked(cls, first: VectorRows, second: VectorRows) -> VectorRows:
        """The rows of ``first``, then those of ``second``, without copying either."""
        require_equal_dim(first, second)
        both = cls.__new__(cls)
        both._parts = first._parts + second._parts
        both._starts = first._starts + [len(first) + start for start in second._starts[1:]]
        both.norms = np.concatenate([first.norms, second.norms])
        return both

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self._starts[-1], self._parts[0][0].shape[1]

    def __len__(self) -> int:
        return self._starts[-1]

    def spans(self, width: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of all rows in order, at most ``width`` each and never of two arrays."""
        for begin, end in pairwise(self._starts):
            for start in range(begin, end, width):
                yield start, min(start + width, end)

    def read(self, start: int, stop: int) -> Floats:
        """(stop - start, D) float32; a view where the source is float32 already."""
        pieces = []
        for (array, keep), (begin, end) in zip(self._parts, pairwise(self._starts), strict=True):
            rows = slice(max(start, begin) - begin, min(stop, end) - begin)
            if rows.start < rows.stop:
                piece = array[rows] if keep is None else array[keep[rows]]
                pieces.append(piece.astype(np.float32, copy=False))
        if not pieces:
            return np.zeros((0, self.shape[1]), np.float32)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def take(self, index: NDArray[np.integer[Any]]) -> Floats:
        """(M, D) float32 copies of some rows."""
        taken = np.empty((len(index), self.shape[1]), np.float32)
        for (array, keep), (begin, end) in zip(self._parts, pairwise(self._starts), strict=True):
            here = (index >= begin) & (index < end)
            local = index[here] - begin
            taken[here] = array[local if keep is None else keep[local]]
        return taken

    def _squared_lengths(self, name: str) -> Floats:
        norms = np.empty(len(self), np.float32)
        for start, stop in self.spans(max(1, 2**18 // max(1, self.shape[1]))):
            rows = self.read(start, stop)
            np.einsum("nd,nd->n", rows, rows, out=norms[start:stop])
        if not np.isfinite(norms).all():
            row = int(np.flatnonzero(~np.isfinite(norms))[0])
            raise InputError(
                f"{name} vectors: row {row} holds a value that is not finite (or beyond 1e19); "
                "expected embeddings of about unit length"
            )
        return norms


def require_equal_dim(query: VectorRows, gallery: VectorRows) -> None:
    """Raise InputError unless both have the same number of dimensions."""
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query vectors have {query.shape[1]} dimensions, gallery vectors {gallery.shape[1]}: "
            "expected equal ones; embed both with the same artefact"
        )


class Distances(Protocol):
    """Distances from every query to every gallery row, computed when asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""

    def rows(self, memory_bytes: int = MEMORY_BYTES) -> Iterator[Floats]:
        """(G,) float32, not negative, of each query in order.

        Works in ``memory_bytes``, or in what one row takes. A row may be written to; it is valid
        until the next one is asked for.
        """

    def row(self, index: int) -> Floats:
        """(G,) float32 of one query, the caller's own."""


class VectorDistances:
    """Distances by a metric.

    Args:
        query: Q rows.
        gallery: G rows.
        metric: see :data:`Metric`.

    Raises:
        InputError: unequal dimensions or an unknown metric.

    >>> corner = VectorRows(np.zeros((1, 2), np.float32), name="query")
    >>> others = VectorRows(np.array([[3, 4], [0, 1]], np.float32), name="gallery")
    >>> VectorDistances(corner, others).row(0).tolist()
    [25.0, 1.0]
    """

    def __init__(
        self, query: VectorRows, gallery: VectorRows, metric: Metric = "euclidean"
    ) -> None:
        require_equal_dim(query, gallery)
        if metric not in get_args(Metric):
            raise InputError(f"metric={metric!r}: expected one of {', '.join(get_args(Metric))}")
        self._query, self._gallery, self._metric = query, gallery, metric

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return len(self._query), len(self._gallery)

    def rows(self, memory_bytes: int = MEMORY_BYTES) -> Iterator[Floats]:
        """See :meth:`Distances.rows`: a quarter of the memory for gallery rows."""
        total, size = self.shape
        step = 3 * memory_bytes // 4 // (4 * (size + 2 * self._gallery.shape[1]))
        step = max(1, min(total, step))
        buffer = np.empty((step, size), np.float32)
        for start in range(0, total, step):
            block = buffer[: min(step, total - start)]
            self._fill(block, start, memory_bytes // 4)
            yield from block

    def row(self, index: int) -> Floats:
        """(G,) float32 of one query."""
        block = np.empty((1, len(self._gallery)), np.float32)
        self._fill(block, index, MEMORY_BYTES // 4)
        row: Floats = block[0]
        return row

    def _fill(self, out: Floats, start: int, tile_bytes: int) -> None:
        """Write the distances of the queries from ``start`` on to ``out``, (B, G) float32."""
        width = max(1, tile_bytes // (4 * max(1, self._gallery.shape[1])))
        for first, last in self._gallery.spans(width):
            self.fill_tile(out[:, first:last], start, first)

    def fill_tile(self, out: Floats, start: int, first: int) -> None:
        """Write the distances of queries from ``start`` on to gallery rows from ``first`` on."""
        rows, columns = (start, start + out.shape[0]), (first, first + out.shape[1])
        query, gallery = self._query.read(*rows), self._gallery.read(*columns)
        query_norm = self._query.norms[slice(*rows), None]
        gallery_norm = self._gallery.norms[slice(*columns)]
        if self._metric == "euclidean":
            np.matmul(query * np.float32(-2), gallery.T, out=out)
            out += gallery_norm
            out += query_norm
        else:
            np.matmul(query * -_inverse_length(query_norm), gallery.T, out=out)
            out *= _inverse_length(gallery_norm)
            out += np.float32(1)
        np.maximum(out, np.float32(0), out=out)


def _inverse_length(squared: Floats) -> Floats:
    """1 / length; 0 for a zero vector, whose cosine to anything counts as 0."""
    length = np.sqrt(squared)
    return np.divide(np.float32(1), length, out=np.zeros_like(length), where=length > 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The nearest gallery rows of every query, nearest first; of equal ones the lower row first.

    Attributes:
        index: (Q, k) int64 gallery rows.
        distance: (Q, k) float32.
        furthest: (Q,) float32 distance to the furthest gallery row.
    """

    index: Ints
    distance: Floats
    furthest: Floats


def nearest(
    query: VectorRows,
    gallery: VectorRows,
    k: int,
    *,
    metric: Metric = "euclidean",
    memory_bytes: int = MEMORY_BYTES,
) -> Neighbours:
    """The ``k`` nearest gallery rows of every query.

    Args:
        query: Q rows.
        gallery: G rows, of any number: only tiles of them are worked on at a time.
        k: neighbours wanted; all where the gallery is smaller.
        metric: see :data:`Metric`.
        memory_bytes: working memory, beside the result.

    Raises:
        InputError: k below 1, or vectors that do not fit.

    >>> corner = VectorRows(np.zeros((1, 2), np.float32), name="query")
    >>> others = np.array([[0, 0], [3, 0], [1, 0], [1, 0]], np.float32)
    >>> nearest(corner, VectorRows(others, name="gallery"), 3).index.tolist()
    [[0, 2, 3]]
    """
    if k < 1:
        raise InputError(f"k={k}: expected at least 1 neighbour")
    source = VectorDistances(query, gallery, metric)
    (total, size), dim = source.shape, query.shape[1]
    # A tile of B x T distances needs 4 bytes each, its partition 8 and a mask 1.
    step = max(1, min(_SEARCH_ROWS, memory_bytes // (16 * max(1, dim))))
    width = max(1, (memory_bytes - 4 * step * dim) // (13 * step + 4 * dim))
    k = min(k, size)
    found = Neighbours(
        index=np.empty((total, k), np.int64),
        distance=np.empty((total, k), np.float32),
        furthest=np.zeros(total, np.float32),
    )
    for start in range(0, total, step):
        stop = min(start + step, total)
        best = (np.empty((stop - start, 0), np.int64), np.empty((stop - start, 0), np.float32))
        for first, last in gallery.spans(width):
            tile = np.empty((stop - start, last - first), np.float32)
            source.fill_tile(tile, start, first)
            np.maximum(found.furthest[start:stop], tile.max(axis=1), out=found.furthest[start:stop])
            column = _smallest(tile, k)
            best = _merged(best, (column + first, np.take_along_axis(tile, column, axis=1)), k)
        found.index[start:stop], found.distance[start:stop] = best
    return found


def _smallest(distance: Floats, k: int) -> Ints:
    """Columns of each row's ``k`` smallest, sorted by distance, then column."""
    if k >= distance.shape[1]:
        everything: Ints = np.argsort(distance, axis=1, kind="stable")
        return everything
    column = np.argpartition(distance, k - 1, axis=1)[:, :k]
    limit = np.take_along_axis(distance, column, axis=1).max(axis=1)
    # Where more than k lie within the limit, the partition chose among equals by chance.
    for row in np.flatnonzero((distance <= limit[:, None]).sum(axis=1) > k):
        within = np.flatnonzero(distance[row] <= limit[row])
        order = np.argsort(distance[row, within], kind="stable")
        column[row] = within[order[:k]]
    column.sort(axis=1)
    order = np.argsort(np.take_along_axis(distance, column, axis=1), axis=1, kind="stable")
    smallest: Ints = np.take_along_axis(column, order, axis=1)
    return smallest


def _merged(best: tuple[Ints, Floats], tile: tuple[Ints, Floats], k: int) -> tuple[Ints, Floats]:
    """Both lists as one of ``k``; the columns of ``best`` lie before those of ``tile``."""
    index = np.concatenate([best[0], tile[0]], axis=1)
    distance = np.concatenate([best[1], tile[1]], axis=1)
    order: Ints = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(distance, order, axis=1)


def ragged(starts: Ints, counts: Ints) -> Ints:
    """The ranges ``starts[i] .. starts[i] + counts[i]`` after one another.

    >>> ragged(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    positions: Ints = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return positions
