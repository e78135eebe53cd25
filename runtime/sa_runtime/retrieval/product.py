"""Squared distances of blocks of vectors, each of which depends on its two vectors alone.

That of one vector to another is the same either way round.

A BLAS sums the products of one pair in an order that may depend on where in its matrix the pair
stands, so that equal vectors get distances that differ in the last bit, and a tie is none. Two ways
lead around it:

- :class:`ExactProduct` cuts the numbers into whole ones that are small enough for float64 to add
  without rounding: the order cannot matter. Its distances are as good as float64's. It takes the
  time of four products in float64, and serves where that is little.
- :class:`SingleProduct` is one product in float32, for everything larger. OpenBLAS with AVX-512
  (and some others) sums alike everywhere in a matrix whose sides are multiples of ``_UNIT``, of
  vectors of a multiple of ``_DEPTH`` numbers, so that is what it is given; :func:`sums_alike` tells
  whether the BLAS at hand does. Where it does not, the exact product serves, of one cut instead of
  two: twice the time.

Shape suffixes: B queries of a block, W gallery rows of a tile, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sa_runtime.retrieval.vectors import AnyFloats, Floats, VectorRows, squared_lengths

EXACT_MULTIPLICATIONS = 2**30
"""Up to so many (Q x G x D) the product is exact: about 0.2 s on one core."""
_UNIT = 64
_DEPTH = 32
"""Of other lengths OpenBLAS cuts a sum where the number of its threads says."""
_CACHED = 2**16
"""Numbers that stay in a core's cache from one pass over them to the next."""
_Float = TypeVar("_Float", np.float32, np.float64)
_COLLAPSED = 7 / 8
"""From this mean cosine on, differences of float32 lose too much: the centre is subtracted first,
which costs a pass over the gallery for each block of queries."""


class Block(NamedTuple):
    """Queries made ready to be compared with tile after tile.

    Attributes:
        parts: what a product multiplies, each (B, D) or taller.
        norms: squared lengths as the product computes them.
        size: B.
    """

    parts: tuple[AnyFloats, ...]
    norms: tuple[AnyFloats, ...]
    size: int


class Product(Protocol):
    """One way to compute squared distances."""

    @property
    def dtype(self) -> type[np.float32] | type[np.float64]:
        """Of the distances."""

    @property
    def row_bytes(self) -> int:
        """Working memory of one prepared row."""

    @property
    def in_place(self) -> bool:
        """Whether gallery rows are read where they are, in tiles of any size."""

    def block(self, start: int, stop: int) -> Block:
        """Make queries ready."""

    def fill(self, out: AnyFloats, block: Block, first: int, last: int) -> None:
        """Write the distances to gallery rows ``first`` to ``last``.

        ``out`` is of :attr:`dtype`, at least (B, W): it may be larger where the caller has use for
        :func:`padded` sizes, and holds anything beyond B and W.
        """


def padded(size: int) -> int:
    """The next multiple of the unit in which blocks are computed without a copy.

    >>> padded(1), padded(64), padded(65)
    (64, 64, 128)
    """
    return -(-size // _UNIT) * _UNIT


def product_of(query: VectorRows, gallery: VectorRows, *, unit: bool) -> Product:
    """The fastest way that gives every pair a distance of its own.

    Args:
        query: Q rows.
        gallery: G rows.
        unit: scale all rows to unit length first; zero rows stay zero.
    """
    if len(query) * len(gallery) * query.shape[1] <= EXACT_MULTIPLICATIONS:
        return ExactProduct(query, gallery, unit=unit, cuts=2)
    if sums_alike():
        return SingleProduct(query, gallery, unit=unit)
    return ExactProduct(query, gallery, unit=unit, cuts=2 if _collapsed(gallery) else 1)


def whole_units(rows: int) -> int:
    """A multiple of that unit, where there are as many rows; at least 1.

    >>> whole_units(130), whole_units(63), whole_units(0)
    (128, 63, 1)
    """
    return rows // _UNIT * _UNIT or max(1, rows)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let the BLAS use one thread for a product, so that several run beside each other."""
    with _blas().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@lru_cache(maxsize=1)
def sums_alike() -> bool:
    """Whether the BLAS sums a pair alike in every place and every size that is a multiple of 64."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        one, other = rng.standard_normal((2, 928), dtype=np.float32)
        values: set[float] = set()
        for height, width in ((64, 64), (64, 192), (192, 64), (128, 256)):
            for first, second in ((one, other), (other, one)):
                left, right = np.tile(first, (height, 1)), np.tile(second, (width, 1))
                values.update(np.unique(left @ right.T).tolist())
                with single_threaded():
                    values.update(np.unique(left @ right.T).tolist())
        if len(values) > 1:
            return False
    return True


class ExactProduct:
    """Distances of vectors that are rounded to 20 bits a cut, without any further rounding.

    With ``x = scale * sum of part[k] * 2 ** (-bits * (k + 1))`` and parts of at most ``2 ** bits``,
    no sum of products of two parts exceeds the ``2 ** 53`` up to which float64 holds every whole
    number. One cut rounds to about a millionth of the largest number there is, two to a millionth
    of that.
    """

    dtype: type[np.float32] | type[np.float64] = np.float64
    in_place = False

    def __init__(self, query: VectorRows, gallery: VectorRows, *, unit: bool, cuts: int) -> None:
        dim = max(1, query.shape[1])
        self._rows = (query, gallery)
        self._unit, self._cuts = unit, cuts
        # 4 D 2**(2 bits) <= 2**53: |q|^2 + |g|^2 - 2 q g of one pair of parts.
        self._bits = (51 - (dim - 1).bit_length()) // 2
        largest = 1.0 if unit else max(_largest(query), _largest(gallery))
        # A power of two, so that scaling does not round.
        self._scale = 2.0 ** np.ceil(np.log2(largest)) if largest > 0 else 1.0
        self.row_bytes = 8 * dim * (cuts + 2)

    def block(self, start: int, stop: int) -> Block:
        """See :class:`Product`."""
        return self._cut(self._rows[0], start, stop)

    def fill(self, out: AnyFloats, block: Block, first: int, last: int) -> None:
        """See :class:`Product`."""
        tile = self._cut(self._rows[1], first, last)
        target = out[: block.size, : tile.size]
        # Horner's rule, from the finest order to the coarsest; equal vectors give zero in each.
        for order in reversed(range(len(block.norms))):
            exact = block.norms[order][:, None] + tile.norms[order]
            for k in range(max(0, order - self._cuts + 1), min(order, self._cuts - 1) + 1):
                exact -= 2 * (block.parts[k] @ tile.parts[order - k].T)
            if order < len(block.norms) - 1:
                exact += target * 2.0**-self._bits
            target[:] = exact
        target *= self._scale**2 * 2.0 ** (-2 * self._bits)
        np.maximum(target, 0, out=target)

    def _cut(self, rows: VectorRows, start: int, stop: int) -> Block:
        rest = rows.read_exactly(start, stop)
        if self._unit:
            rest = rest * _inverse_length(squared_lengths(rest))[:, None]
        rest = rest * (2.0**self._bits / self._scale)
        parts = []
        for _ in range(self._cuts):
            parts.append(np.rint(rest))
            rest = (rest - parts[-1]) * 2.0**self._bits
        norms: list[AnyFloats] = [np.zeros(len(rest)) for _ in range(2 * self._cuts - 1)]
        for k, one in enumerate(parts):
            for j, other in enumerate(parts):
                norms[k + j] += np.einsum("nd,nd->n", one, other)
        return Block(tuple(parts), tuple(norms), len(rest))


class SingleProduct:
    """Distances in float32; of vectors that crowd around one direction, after centring them."""

    dtype: type[np.float32] | type[np.float64] = np.float32

    def __init__(self, query: VectorRows, gallery: VectorRows, *, unit: bool) -> None:
        self._rows = (query, gallery)
        self._unit = unit
        self._centre = _centre(gallery, unit) if _collapsed(gallery) else None
        self._depth = -(-query.shape[1] // _DEPTH) * _DEPTH
        self._norms = (self._squared_lengths(query), self._squared_lengths(gallery))
        self.row_bytes = 4 * max(1, self._depth)
        as_is = self._centre is None and not unit and self._depth == query.shape[1]
        self.in_place = as_is and gallery.in_place

    def block(self, start: int, stop: int) -> Block:
        """See :class:`Product`."""
        count = stop - start
        rows = np.zeros((padded(count), self._depth), np.float32)
        np.multiply(self._read(self._rows[0], start, stop), np.float32(-2), out=rows[:count])
        norms = np.zeros(len(rows), np.float32)
        norms[:count] = self._norms[0][start:stop]
        return Block((rows,), (norms,), count)

    def fill(self, out: AnyFloats, block: Block, first: int, last: int) -> None:
        """See :class:`Product`."""
        whole = first + (last - first) // _UNIT * _UNIT
        tile = self._read(self._rows[1], first, last)
        norms = self._norms[1][first:last]
        self._fill(out, block, tile[: whole - first], norms[: whole - first])
        if whole < last:  # only what lies beyond whole units is copied
            rest = np.zeros((_UNIT, tile.shape[1]), np.float32)
            rest[: last - whole] = tile[whole - first :]
            rest_norms = np.zeros(_UNIT, np.float32)
            rest_norms[: last - whole] = norms[whole - first :]
            self._fill(out[:, whole - first :], block, rest, rest_norms)

    def _fill(self, out: AnyFloats, block: Block, tile: Floats, tile_norms: Floats) -> None:
        """Write the distances to a tile of whole units, as far as ``out`` has room for them."""
        (rows,), (norms,), size = block
        fits = out.shape[0] >= len(rows) and out.shape[1] >= len(tile)
        target = (
            out[: len(rows), : len(tile)] if fits else np.empty((len(rows), len(tile)), np.float32)
        )
        np.matmul(rows, tile.T, out=target)
        height = max(1, _CACHED // max(1, len(tile)))
        lengths = np.empty((height, len(tile)), np.float32)
        for start in range(0, len(rows), height):
            strip = target[start : start + height]
            mine, both = norms[start : start + height, None], lengths[: len(strip)]
            # Their sum first, so that a pair has one distance either way round.
            strip += np.add(mine, tile_norms, out=both)
            np.maximum(strip, np.float32(0), out=strip)
        if not fits:
            width = min(out.shape[1], len(tile))
            out[:size, :width] = target[:size, :width]

    def _read(self, rows: VectorRows, start: int, stop: int) -> Floats:
        found = rows.read(start, stop)
        if self._unit:
            found = found * _inverse_length(rows.norms[start:stop])[:, None]
        if self._centre is not None:
            found = found - self._centre
        if found.shape[1] == self._depth:
            return found
        filled = np.zeros((len(found), self._depth), np.float32)
        filled[:, : found.shape[1]] = found
        return filled

    def _squared_lengths(self, rows: VectorRows) -> Floats:
        if self._centre is None and not self._unit:
            return rows.norms
        norms = np.empty(len(rows), np.float32)
        for start, stop in rows.spans(max(1, 2**18 // max(1, rows.shape[1]))):
            found = self._read(rows, start, stop)
            norms[start:stop] = squared_lengths(found)
        return norms


def _collapsed(rows: VectorRows) -> bool:
    """Whether the rows crowd around one direction."""
    mean = rows.total / max(1, len(rows))
    return bool(mean @ mean > _COLLAPSED * np.mean(rows.norms, dtype=np.float64))


def _centre(rows: VectorRows, unit: bool) -> Floats:
    """(D,) the mean row to about 2**-20; whole numbers are summed, so that no order matters."""
    longest = 1.0 if unit else float(np.sqrt(rows.norms.max()))
    scale = 2.0 ** (20 - np.ceil(np.log2(longest)))
    total = np.zeros(rows.shape[1])
    for start, stop in rows.spans(max(1, 2**17 // rows.shape[1])):
        found = rows.read_exactly(start, stop)
        if unit:
            found = found * _inverse_length(rows.norms[start:stop].astype(np.float64))[:, None]
        total += np.rint(found * scale).sum(axis=0)
    centre: Floats = (total / (len(rows) * scale)).astype(np.float32)
    return centre


def _largest(rows: VectorRows) -> float:
    """The largest absolute number."""
    spans = rows.spans(max(1, 2**17 // max(1, rows.shape[1])))
    return max(
        (float(np.abs(rows.read_exactly(*span)).max(initial=0)) for span in spans), default=0
    )


def _inverse_length(squared: NDArray[_Float]) -> NDArray[_Float]:
    """1 / length; 0 for a zero vector."""
    length = np.sqrt(squared)
    return np.divide(1, length, out=np.zeros_like(length), where=length > 0)
