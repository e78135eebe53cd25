"""Vectors of any float type, on disk or stacked, read in slices.

Shape suffixes: N rows, M rows that are kept, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError

Vectors = NDArray[np.floating[Any]]
"""(N, D) float16, float32 or float64, :class:`numpy.memmap` included."""
Floats = NDArray[np.float32]
AnyFloats = NDArray[np.floating[Any]]
"""float32 or float64."""
_Float = TypeVar("_Float", np.float32, np.float64)
Ints = NDArray[np.int64]


class VectorRows:
    """Rows of one array, or of several stacked ones: read in slices, never as a whole.

    Args:
        vectors: (N, D) of a float type.
        name: what the vectors are, for messages.
        keep: (M,) rows to keep, in this order; all where it is None.

    Attributes:
        norms: (M,) float32 squared lengths.
        total: (D,) float64 sum of the rows, to about float32's precision.

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
        if keep is not None and len(keep) and (np.diff(keep) == 1).all():
            vectors, keep = vectors[keep[0] : keep[-1] + 1], None
        self._parts: list[tuple[Vectors, Ints | None]] = [(vectors, keep)]
        self._starts = [0, len(vectors) if keep is None else len(keep)]
        self.norms, self.total = self._measure(name)

    @classmethod
    def stacked(cls, first: VectorRows, second: VectorRows) -> VectorRows:
        """The rows of ``first``, then those of ``second``, without copying either."""
        require_equal_dim(first, second)
        both = cls.__new__(cls)
        both._parts = first._parts + second._parts
        both._starts = first._starts + [len(first) + start for start in second._starts[1:]]
        both.norms = np.concatenate([first.norms, second.norms])
        both.total = first.total + second.total
        return both

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self._starts[-1], self._parts[0][0].shape[1]

    @property
    def in_place(self) -> bool:
        """Whether :meth:`read` gives views of arrays that are in memory."""
        return all(
            keep is None and array.dtype == np.float32 and not isinstance(array, np.memmap)
            for array, keep in self._parts
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def spans(self, width: int, *, first: int = 0) -> Iterator[tuple[int, int]]:
        """(start, stop) of all rows from ``first`` on, at most ``width``, never of two arrays."""
        for begin, end in pairwise(self._starts):
            for start in range(max(begin, first), end, width):
                yield start, min(start + width, end)

    def read(self, start: int, stop: int) -> Floats:
        """(stop - start, D) float32; a view where the source is float32 already."""
        return self._slice(start, stop, np.float32)

    def read_exactly(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, D) float64."""
        return self._slice(start, stop, np.float64)

    def take(self, index: NDArray[np.integer[Any]]) -> Floats:
        """(M, D) float32 copies of some rows."""
        taken = np.empty((len(index), self.shape[1]), np.float32)
        for (array, keep), (begin, end) in zip(self._parts, pairwise(self._starts), strict=True):
            here = (index >= begin) & (index < end)
            local = index[here] - begin
            rows = array[local if keep is None else keep[local]]
            if len(rows) == len(index):
                everything: Floats = rows.astype(np.float32, copy=False)
                return everything
            taken[here] = rows
        return taken

    def _slice(self, start: int, stop: int, dtype: type[_Float]) -> NDArray[_Float]:
        pieces = []
        for (array, keep), (begin, end) in zip(self._parts, pairwise(self._starts), strict=True):
            rows = slice(max(start, begin) - begin, min(stop, end) - begin)
            if rows.start < rows.stop:
                piece = array[rows] if keep is None else array[keep[rows]]
                pieces.append(piece.astype(dtype, copy=False))
        if not pieces:
            return np.zeros((0, self.shape[1]), dtype)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _measure(self, name: str) -> tuple[Floats, NDArray[np.float64]]:
        norms, total = np.empty(len(self), np.float32), np.zeros(self.shape[1])
        for start, stop in self.spans(max(1, 2**18 // max(1, self.shape[1]))):
            rows = self.read(start, stop)
            norms[start:stop] = squared_lengths(rows)
            total += np.ones(len(rows), np.float32) @ rows
        if not np.isfinite(norms).all():
            row = int(np.flatnonzero(~np.isfinite(norms))[0])
            raise InputError(
                f"{name} vectors: row {row} holds a value that is not finite (or beyond 1e19); "
                "expected embeddings of about unit length"
            )
        return norms, total


def squared_lengths(rows: NDArray[_Float]) -> NDArray[_Float]:
    """(N,) sums of the squares of each row, in an order that does not depend on the other rows.

    :func:`numpy.einsum` sums a row of more than 8,192 numbers otherwise where it is alone.
    """
    squares = np.square(rows, order="C")
    lengths: NDArray[_Float] = squares.sum(axis=1)
    return lengths


def require_equal_dim(query: VectorRows, gallery: VectorRows) -> None:
    """Raise InputError unless both have the same number of dimensions."""
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query vectors have {query.shape[1]} dimensions, gallery vectors {gallery.shape[1]}: "
            "expected equal ones; embed both with the same artefact"
        )
