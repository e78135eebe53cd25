"""The nearest rows of every query, and of every row among all of them.

Shape suffixes: Q queries, R rows of a tile and C its columns, T rows for which something was found
and M places for it, k neighbours.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import bad_value
from sa_runtime.retrieval.distance import MEMORY_BYTES, Metric, VectorDistances
from sa_runtime.retrieval.product import (
    Block,
    Product,
    padded,
    product_of,
    single_threaded,
    whole_units,
)
from sa_runtime.retrieval.vectors import AnyFloats, Floats, Ints, VectorRows
from sa_runtime.system.environment import cores

_SEARCH_ROWS = 512
_BLOCK_ROWS = 1024
"""The more rows a tile has, the fewer lists of neighbours are merged."""
_PARTITIONED = 128
"""Rows whose columns are partitioned at a time, which takes 8 bytes for each."""


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


class _Found(NamedTuple):
    """Columns of a tile that may be among the nearest of some of its rows.

    Attributes:
        row: (T,) rows of the tile.
        column: (T, M) columns, of equal distances the lower first.
        distance: (T, M); NaN where there are fewer.
    """

    row: Ints
    column: Ints
    distance: AnyFloats


class _Side(NamedTuple):
    """What a tile says of some queries.

    Attributes:
        query: number of the first one.
        gallery: number of the tile's first gallery row.
        furthest: (R,) largest distance in the tile.
        found: what may be among the nearest.
    """

    query: int
    gallery: int
    furthest: AnyFloats
    found: Sequence[_Found]


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
        metric: see :data:`sa_runtime.retrieval.distance.Metric`.
        memory_bytes: working memory, beside the result.

    Raises:
        InputError: k below 1, or vectors that do not fit.

    >>> corner = VectorRows(np.zeros((1, 2), np.float32), name="query")
    >>> others = np.array([[0, 0], [3, 0], [1, 0], [1, 0]], np.float32)
    >>> nearest(corner, VectorRows(others, name="gallery"), 3).index.tolist()
    [[0, 2, 3]]
    """
    source = VectorDistances(query, gallery, metric)
    total, size = source.shape
    best = _Nearest(total, size, k, source.dtype)
    workers = cores() if source.in_place else 1
    step, width = _search_tile(source, memory_bytes // workers)
    starts = range(0, total, step)

    def search(start: int) -> None:
        for first, tile in source.tiles(start, min(start + step, total), width):
            best.take(best.side(tile, start, first))

    if workers == 1 or len(starts) < 2 * workers:
        for start in starts:
            search(start)
    else:
        with single_threaded(), ThreadPoolExecutor(workers) as pool:
            list(pool.map(search, starts))
    return best.neighbours()


def nearest_among(rows: VectorRows, k: int, *, memory_bytes: int = MEMORY_BYTES) -> Neighbours:
    """The ``k`` nearest of every row among all rows, itself included.

    As :func:`nearest` of the rows with themselves says it, by squared Euclidean distances; but a
    pair is compared once, for both of its rows, which takes half the time.

    Args:
        rows: N rows.
        k: neighbours wanted; all where there are fewer rows.
        memory_bytes: working memory, beside the result.

    Raises:
        InputError: k below 1.

    >>> three = np.array([[0], [5], [1]], np.float32)
    >>> nearest_among(VectorRows(three, name="some"), 2).index.tolist()
    [[0, 2], [1, 2], [2, 0]]
    """
    product = product_of(rows, rows, unit=False)
    best = _Nearest(len(rows), len(rows), k, product.dtype)
    workers = cores() if product.in_place else 1
    step, width = _pairs_tile(product, memory_bytes, workers)
    free: SimpleQueue[AnyFloats] = SimpleQueue()
    for _ in range(workers):
        sides = (padded(min(size, len(rows))) for size in (step, width))
        free.put(_mapped(math.prod(sides), product.dtype))

    def compare(block: Block, start: int, first: int, last: int) -> list[_Side]:
        buffer = free.get()
        try:
            height, across = padded(block.size), padded(last - first)
            out = buffer[: height * across].reshape(height, across)
            product.fill(out, block, first, last)
            tile = out[: block.size, : last - first]
            found = [best.side(tile, start, first)]
            beyond = max(0, start + block.size - first)
            if beyond < last - first:
                found.append(best.side(tile[:, beyond:].T, first + beyond, start))
            return found
        finally:
            free.put(buffer)

    alone = single_threaded() if workers > 1 else nullcontext()
    with alone, ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[list[_Side]]] = deque()
        # Taken in the order of the tiles, so that each row meets the others in ascending order.
        for work in _pairs(product, rows, step, width):
            ahead.append(pool.submit(compare, *work))
            if len(ahead) > workers:
                best.take(*ahead.popleft().result())
        while ahead:
            best.take(*ahead.popleft().result())
    return best.neighbours()


def _mapped(size: int, dtype: type[np.float32] | type[np.float64]) -> AnyFloats:
    """Numbers whose memory goes back to the system with them, and not to an allocator's store."""
    return np.frombuffer(mmap.mmap(-1, max(1, size) * np.dtype(dtype).itemsize), dtype)


def _pairs(
    product: Product, rows: VectorRows, step: int, width: int
) -> Iterator[tuple[Block, int, int, int]]:
    """Blocks of rows, with tiles of those from their first one on: block, its start, and a span."""
    for start in range(0, len(rows), step):
        block = product.block(start, min(start + step, len(rows)))
        for first, last in rows.spans(width, first=start):
            yield block, start, first, last


class _Nearest:
    """The nearest rows so far, of queries that meet the gallery in ascending order.

    So of equal distances the one that was met first counts.
    """

    def __init__(
        self, queries: int, size: int, k: int, dtype: type[np.float32] | type[np.float64]
    ) -> None:
        if k < 1:
            raise bad_value("k", k, "expected at least 1 neighbour")
        self._k = min(k, size)
        self._index = np.zeros((queries, self._k), np.int64)
        self._distance: AnyFloats = np.full((queries, self._k), np.nan, dtype)
        self._furthest = np.zeros(queries, np.float32)

    def side(self, tile_RC: AnyFloats, query: int, gallery: int) -> _Side:
        """What the distances of a tile say of its rows, the first of which is ``query``.

        Several may ask at once, also while another is taken: less is known then, and more found.
        """
        limit_R = self._distance[query : query + len(tile_RC), -1].copy()
        found = list(_within(tile_RC, limit_R, self._k))
        return _Side(query, gallery, tile_RC.max(axis=1), found)

    def take(self, *sides: _Side) -> None:
        """Note what was found."""
        for side in sides:
            furthest = self._furthest[side.query : side.query + len(side.furthest)]
            np.maximum(furthest, side.furthest, out=furthest)
            for found in side.found:
                query = found.row + side.query
                index = np.concatenate([self._index[query], found.column + side.gallery], axis=1)
                distance = np.concatenate([self._distance[query], found.distance], axis=1)
                order = np.argsort(distance, axis=1, kind="stable")[:, : self._k]
                self._index[query] = np.take_along_axis(index, order, axis=1)
                self._distance[query] = np.take_along_axis(distance, order, axis=1)

    def neighbours(self) -> Neighbours:
        """The result."""
        distance = self._distance.astype(np.float32, copy=False)
        return Neighbours(index=self._index, distance=distance, furthest=self._furthest)


def _within(tile_RC: AnyFloats, limit_R: AnyFloats, k: int) -> Iterator[_Found]:
    """The at most ``k`` columns of each row that are below its limit; NaN is no limit."""
    every = np.arange(len(tile_RC))
    if np.isnan(limit_R).any():
        yield _partitioned(tile_RC, every, k)
        return
    below_RC = tile_RC < limit_R[:, None]
    if np.count_nonzero(below_RC) > k * len(tile_RC):
        yield _partitioned(tile_RC, every, k)
        return
    row, column = _places(below_RC)
    count_R = np.bincount(row, minlength=len(tile_RC))
    many = np.flatnonzero(count_R > k)
    if len(many):
        yield _partitioned(tile_RC, many, k)
        few = count_R[row] <= k
        row, column, count_R[many] = row[few], column[few], 0
    touched = np.flatnonzero(count_R)
    if not len(touched):
        return
    count_T = count_R[touched]
    line = np.repeat(np.arange(len(touched)), count_T)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count_T) - count_T, count_T)
    found_TM = np.zeros((len(touched), int(count_T.max())), np.int64)
    distance_TM: AnyFloats = np.full(found_TM.shape, np.nan, tile_RC.dtype)
    found_TM[line, place] = column
    distance_TM[line, place] = tile_RC[row, column]
    yield _Found(touched, found_TM, distance_TM)


def _places(mask_RC: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Rows and columns where a mask is set, sorted by both; it is read as it lies in memory."""
    if mask_RC.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(mask_RC), mask_RC.shape[1])
        return row, column
    column, row = np.divmod(np.flatnonzero(mask_RC.T), len(mask_RC))
    order = np.argsort(row, kind="stable")
    return row[order], column[order]


def _partitioned(tile_RC: AnyFloats, row: Ints, k: int) -> _Found:
    """The ``k`` smallest of some rows of a tile."""
    column = np.empty((len(row), min(k, tile_RC.shape[1])), np.int64)
    distance: AnyFloats = np.empty(column.shape, tile_RC.dtype)
    for start in range(0, len(row), _PARTITIONED):
        part = slice(start, start + _PARTITIONED)
        some = np.ascontiguousarray(tile_RC[row[part]])
        column[part] = _smallest(some, k)
        distance[part] = np.take_along_axis(some, column[part], axis=1)
    return _Found(row, column, distance)


def _smallest(distance: AnyFloats, k: int) -> Ints:
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


def _search_tile(source: VectorDistances, memory_bytes: int) -> tuple[int, int]:
    """Queries and gallery rows that are compared at a time."""
    row_bytes = source.row_bytes
    step = min(_SEARCH_ROWS, whole_units(memory_bytes // (4 * row_bytes)))
    # A distance needs 4 or 8 bytes, that of the tile before as many, and what is found in it 9.
    pair_bytes = 2 * np.dtype(source.dtype).itemsize + 9
    copied = 0 if source.in_place else 2 * row_bytes
    width = (memory_bytes - 2 * row_bytes * step) // (pair_bytes * step + copied)
    return step, max(padded(1), whole_units(width))


def _pairs_tile(product: Product, memory_bytes: int, workers: int) -> tuple[int, int]:
    """Rows of a block, and of the tiles that each core compares with it."""
    row_bytes = product.row_bytes
    step = min(_BLOCK_ROWS, whole_units(memory_bytes // (8 * row_bytes)))
    # A distance needs 4 or 8 bytes, and a mask 1; two blocks may be in use. Half is left to what is
    # found, and to what an allocator keeps.
    pair_bytes = np.dtype(product.dtype).itemsize + 1
    copied = 0 if product.in_place else 2 * row_bytes
    width = (memory_bytes // 2 - 2 * row_bytes * step) // workers // (pair_bytes * step + copied)
    return step, max(padded(1), whole_units(width))
