"""Distances between vectors in blocks of bounded size.

A full matrix of distances is never kept: whoever needs it takes a block of query rows after
another. A distance depends on its two vectors alone, not on where they stand, on how many there
are beside them (but for the precision, see :mod:`sa_runtime.retrieval.product`), on the memory or
on the number of threads; so equal vectors have equal distances. Shape suffixes: Q queries, G
gallery rows, B rows of a block, D dimensions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol, get_args

import numpy as np

from sa_runtime.errors import bad_value
from sa_runtime.retrieval.product import padded, product_of, single_threaded, whole_units
from sa_runtime.retrieval.vectors import AnyFloats, VectorRows, require_equal_dim
from sa_runtime.system.environment import cores

Metric = Literal["euclidean", "cosine"]
"""``euclidean``: the squared Euclidean distance; ``cosine``: one minus the cosine. Both rank unit
vectors alike."""
MEMORY_BYTES = 128 * 2**20
"""Working memory of one pass over the distances, if the caller does not say otherwise."""
_LEAST_ROWS = 256
"""A smaller block for each core takes longer than one for all."""
_UNIT = padded(1)


class Distances(Protocol):
    """Distances from every query to every gallery row, computed when asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""

    def rows(self, memory_bytes: int = MEMORY_BYTES) -> Iterator[AnyFloats]:
        """(G,) float32 or float64, finite, of each query in order.

        Works in ``memory_bytes``, or in what one row and a tile of 64 by 64 vectors take. A row may
        be written to; it is valid until the next one is asked for.
        """

    def row(self, index: int) -> AnyFloats:
        """(G,) float32 or float64 of one query, the caller's own; as :meth:`rows` gives it."""


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
            raise bad_value("metric", metric, f"expected one of {', '.join(get_args(Metric))}")
        self._query, self._gallery, self._cosine = query, gallery, metric == "cosine"
        self._product = product_of(query, gallery, unit=self._cosine)

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return len(self._query), len(self._gallery)

    @property
    def dtype(self) -> type[np.float32] | type[np.float64]:
        """Of the distances: float64 where there are few enough to afford it."""
        return self._product.dtype

    @property
    def row_bytes(self) -> int:
        """Working memory of one vector that is being compared."""
        return self._product.row_bytes

    @property
    def in_place(self) -> bool:
        """Whether gallery rows are read where they are, in tiles of any size."""
        return self._product.in_place

    def rows(self, memory_bytes: int = MEMORY_BYTES) -> Iterator[AnyFloats]:
        """See :meth:`Distances.rows`: a quarter of the memory for gallery rows that are copied.

        While the rows of a block are looked at, the next ones are computed: a block on each core,
        since cores that share a product wait for each other where they have anything else to do.
        """
        total, size = self.shape
        tile_bytes = 0 if self._product.in_place else memory_bytes // 4
        row_bytes = self._product.row_bytes + np.dtype(self.dtype).itemsize * padded(size)
        most = whole_units((memory_bytes - tile_bytes) // row_bytes)
        workers = cores()
        step = min(most // (workers + 1), -(-total // workers))
        if not self._product.in_place or workers == 1 or step < _LEAST_ROWS:
            step = min(padded(total), most)
            buffer = np.empty((step, padded(size)), self.dtype)
            for start in range(0, total, step):
                yield from self._fill(buffer, start, min(start + step, total), tile_bytes)
            return
        rounds = -(-total // (workers * step))
        step = padded(-(-total // (workers * rounds)))
        buffers = [np.empty((step, padded(size)), self.dtype) for _ in range(workers + 1)]
        with single_threaded(), ThreadPoolExecutor(workers) as pool:
            ahead: deque[Future[AnyFloats]] = deque()
            for number, start in enumerate(range(0, total, step)):
                buffer = buffers[number % len(buffers)]
                stop = min(start + step, total)
                ahead.append(pool.submit(self._fill, buffer, start, stop, tile_bytes))
                if len(ahead) == len(buffers):
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def row(self, index: int) -> AnyFloats:
        """(G,) of one query."""
        block = np.empty((1, len(self._gallery)), self.dtype)
        row: AnyFloats = self._fill(block, index, index + 1, MEMORY_BYTES // 4)[0]
        return row

    def tiles(self, start: int, stop: int, width: int) -> Iterator[tuple[int, AnyFloats]]:
        """The distances of some queries, at most ``width`` gallery rows at a time.

        Yields:
            The first of the gallery rows, and (stop - start, W) distances.
        """
        block = self._product.block(start, stop)
        for first, last in self._gallery.spans(width):
            out = np.empty((padded(stop - start), padded(last - first)), self.dtype)
            self._product.fill(out, block, first, last)
            tile = out[: stop - start, : last - first]
            self._finish(tile, start, first)
            yield first, tile

    def _fill(self, out: AnyFloats, start: int, stop: int, tile_bytes: int) -> AnyFloats:
        """Write the distances of some queries to the first rows of ``out``, and give these.

        A tile may spill into the columns behind it, which the next one then writes.
        """
        block = self._product.block(start, stop)
        width = max(_UNIT, whole_units(tile_bytes // self._product.row_bytes))
        if self._product.in_place:
            width = max(_UNIT, len(self._gallery))
        for first, last in self._gallery.spans(width):
            self._product.fill(out[:, first:], block, first, last)
        filled = out[: stop - start, : len(self._gallery)]
        self._finish(filled, start, 0)
        return filled

    def _finish(self, out: AnyFloats, start: int, first: int) -> None:
        """Turn squared distances of unit vectors into one minus the cosine, where that is asked."""
        if self._cosine:
            out *= 0.5
            # The cosine of a zero vector to anything counts as 0.
            out[self._query.norms[start : start + len(out)] == 0] = 1
            out[:, self._gallery.norms[first : first + out.shape[1]] == 0] = 1
