"""Re-ranking with k-reciprocal encoding (Zhong, Zheng, Cao, Li: CVPR 2017), in bounded memory.

Each image is described by its k-reciprocal neighbours; the final distance mixes the Jaccard
distance of two such descriptions with the original one. Neighbour lists of fixed length and sparse
descriptions are all that is kept; (Q + G)^2 matrices, as the published code builds, are not.

Shape suffixes: N = Q + G images (queries first), K neighbours, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.retrieval.distance import MEMORY_BYTES, VectorDistances
from sa_runtime.retrieval.neighbours import nearest_among
from sa_runtime.retrieval.vectors import AnyFloats, Floats, Ints, VectorRows, squared_lengths
from sa_runtime.system.environment import cores

_CACHED = 2**17
"""Numbers of the vectors that are compared at a time: they stay in a core's cache."""


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """The three parameters of the paper, with its values.

    It never changes, so that threads may share it.

    Attributes:
        k1: neighbours among which reciprocal ones are sought.
        k2: neighbours whose descriptions are averaged (local query expansion).
        original_weight: lambda, the weight of the original distance in the final one.
    """

    k1: int = 20
    k2: int = 6
    original_weight: float = 0.3

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.k1 < 1:
            raise InputError(f"reranking.k1={self.k1}: expected at least 1")
        if not 1 <= self.k2 <= self.k1 + 1:
            raise InputError(f"reranking.k2={self.k2}: expected 1 to k1 + 1 = {self.k1 + 1}")
        if not 0 <= self.original_weight <= 1:
            raise InputError(f"reranking.original_weight={self.original_weight}: expected 0 to 1")


class Sparse(NamedTuple):
    """A sparse matrix by rows: row i holds ``value[start[i]:start[i + 1]]`` at those columns."""

    start: Ints
    column: NDArray[np.int32]
    value: Floats


class RerankedDistances:
    """Re-ranked distances of every query to every gallery image.

    As the published Python code computes them, in float32: squared Euclidean distances, each row
    divided by its largest; a neighbour's half-sized set joins where more than 2/3 of it overlap
    (in true division); k1/2 is rounded half to even. Equal distances rank by row.

    Args:
        query: Q rows, expected of unit length.
        gallery: G rows.
        settings: the parameters.
        memory_bytes: working memory; beside it, at the paper's values, about 2 kB an image while
            the neighbours are encoded and 1 kB afterwards.

    Raises:
        InputError: unequal dimensions, or no rows.
    """

    def __init__(
        self,
        query: VectorRows,
        gallery: VectorRows,
        settings: Reranking,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if not len(query) or not len(gallery):
            raise InputError(
                f"{len(query)} query and {len(gallery)} gallery vectors: re-ranking expects some"
            )
        self._weight = np.float32(settings.original_weight)
        self._original = VectorDistances(query, gallery)
        everyone = VectorRows.stacked(query, gallery)
        near = nearest_among(everyone, settings.k1 + 1, memory_bytes=memory_bytes)
        ranked_NK = near.index.astype(np.int32)
        # Where all images are equal there is no scale; the distances stay 0.
        scale_N = np.where(near.furthest > 0, near.furthest, np.float32(1))
        del near
        half = round(settings.k1 / 2) + 1
        sets = _expanded_sets(ranked_NK, half, memory_bytes)
        encoded = _weighted(sets, everyone, scale_N)
        if settings.k2 > 1:
            encoded = _averaged(encoded, ranked_NK[:, : settings.k2], memory_bytes)
        self._scale = scale_N[: len(query)]
        self._encoded = _head(encoded, len(query))
        self._inverted = _inverted(encoded, len(query))

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return self._original.shape

    def rows(self, memory_bytes: int = MEMORY_BYTES) -> Iterator[AnyFloats]:
        """See :meth:`sa_runtime.retrieval.distance.Distances.rows`."""
        # The rest is for what was found out about the images.
        for query, row in enumerate(self._original.rows(memory_bytes // 2)):
            self._mix(row, query)
            yield row

    def row(self, index: int) -> AnyFloats:
        """(G,) of one query."""
        row = self._original.row(index)
        self._mix(row, index)
        return row

    def _mix(self, row: AnyFloats, query: int) -> None:
        """Turn original distances into final ones, in place."""
        row *= self._weight / self._scale[query]
        row += (1 - self._weight) * self._jaccard(query, len(row))

    def _jaccard(self, query: int, size: int) -> Floats:
        mine = slice(*self._encoded.start[query : query + 2])
        column, value = self._encoded.column[mine], self._encoded.value[mine]
        first = self._inverted.start[column]
        counts = self._inverted.start[column + 1] - first
        entry = _ragged(first, counts)
        shared = np.bincount(
            self._inverted.column[entry],
            weights=np.minimum(np.repeat(value, counts), self._inverted.value[entry]),
            minlength=size,
        ).astype(np.float32)
        # The weights of a row sum to 1 but for rounding. They are float32 and not far below a
        # thousandth, so that their sums in float64 are exact.
        return np.maximum(np.float32(1) - shared / (np.float32(2) - shared), np.float32(0))


def _reciprocal(ranked_NK: NDArray[np.int32], memory_bytes: int) -> NDArray[np.int32]:
    """(N, K) neighbours that have the row among their own K; -1 in place of the others."""
    total, k = ranked_NK.shape
    kept_NK = np.full_like(ranked_NK, -1)
    step = max(1, memory_bytes // (8 * k * k))
    for start in range(0, total, step):
        near_BK = ranked_NK[start : start + step]
        me_B11 = np.arange(start, start + len(near_BK), dtype=np.int32)[:, None, None]
        mutual_BK = (ranked_NK[near_BK] == me_B11).any(axis=2)
        kept_NK[start : start + step][mutual_BK] = near_BK[mutual_BK]
    return kept_NK


def _expanded_sets(ranked_NK: NDArray[np.int32], half: int, memory_bytes: int) -> Sparse:
    """R*(p, k1) of every image: its reciprocal set, and its members' half sets that overlap it.

    The values are not filled in yet.
    """
    total, k = ranked_NK.shape
    full_NK = _reciprocal(ranked_NK, memory_bytes)
    half_NH = _reciprocal(ranked_NK[:, :half], memory_bytes)
    counts, columns = [], []
    step = max(1, memory_bytes // (2 * half_NH.shape[1] * k * (k + 8)))
    for start in range(0, total, step):
        own_BK = full_NK[start : start + step]
        theirs_BKH = np.where((own_BK >= 0)[..., None], half_NH[own_BK], np.int32(-1))
        valid_BKH = theirs_BKH >= 0
        shared_BKH = (theirs_BKH[..., None] == own_BK[:, None, None, :]).any(axis=3) & valid_BKH
        accept_BK = 3 * shared_BKH.sum(axis=2) > 2 * valid_BKH.sum(axis=2)
        theirs_BKH[~accept_BK] = -1
        members = np.concatenate([own_BK, theirs_BKH.reshape(len(own_BK), -1)], axis=1)
        members.sort(axis=1)
        new = members >= 0
        new[:, 1:] &= members[:, 1:] != members[:, :-1]
        counts.append(new.sum(axis=1))
        columns.append(members[new])
    start_N = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    column = np.concatenate(columns)
    return Sparse(start_N, column, np.empty(len(column), np.float32))


def _weighted(sets: Sparse, vectors: VectorRows, scale_N: Floats) -> Sparse:
    """Weights exp(-distance / scale), of sum 1 in each row.

    A distance is the sum of the squared differences, and a sum of weights is taken in float64, so
    that neither depends on where the rows stand.
    """
    owner = np.repeat(np.arange(len(scale_N)), np.diff(sets.start))
    step = max(1, _CACHED // vectors.shape[1])

    def compare(first: int) -> None:
        part = slice(first, first + step)
        apart = vectors.take(sets.column[part])
        apart -= vectors.take(owner[part])
        sets.value[part] = squared_lengths(apart)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(compare, range(0, len(owner), step)))
    weight = np.exp(-sets.value / scale_N[owner])
    total_N = np.bincount(owner, weights=weight, minlength=len(scale_N)).astype(np.float32)
    return sets._replace(value=weight / total_N[owner])


def _averaged(encoded: Sparse, near_NK: NDArray[np.int32], memory_bytes: int) -> Sparse:
    """The mean of the rows of each image's nearest neighbours."""
    total, k = near_NK.shape
    longest = int(np.diff(encoded.start).max())
    step = max(1, memory_bytes // (64 * k * max(1, longest)))
    counts, columns, values = [], [], []
    for start in range(0, total, step):
        near = near_NK[start : start + step]
        first = encoded.start[near.ravel()]
        lengths = encoded.start[near.ravel() + 1] - first
        entry = _ragged(first, lengths)
        row = np.repeat(np.repeat(np.arange(len(near)), k), lengths)
        key = row * total + encoded.column[entry]
        order = np.argsort(key, kind="stable")
        key = key[order]
        new = np.flatnonzero(np.diff(key, prepend=-1))
        if len(new):
            values.append(np.add.reduceat(encoded.value[entry[order]], new) / np.float32(k))
        columns.append((key[new] % total).astype(np.int32))
        counts.append(np.bincount(key[new] // total, minlength=len(near)))
    start_N = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Sparse(start_N, np.concatenate(columns), np.concatenate(values))


def _head(encoded: Sparse, rows: int) -> Sparse:
    """The first rows, in arrays of their own."""
    end = encoded.start[rows]
    return Sparse(
        encoded.start[: rows + 1], encoded.column[:end].copy(), encoded.value[:end].copy()
    )


def _inverted(encoded: Sparse, queries: int) -> Sparse:
    """The gallery's rows by column: who holds weight at an image, counted from the first one."""
    total = len(encoded.start) - 1
    first = encoded.start[queries]
    counts = np.diff(encoded.start[queries:])
    owner = np.repeat(np.arange(total - queries, dtype=np.int32), counts)
    order = np.argsort(encoded.column[first:], kind="stable")
    sizes = np.bincount(encoded.column[first:], minlength=total)
    start = np.concatenate([[0], np.cumsum(sizes)])
    return Sparse(start, owner[order], encoded.value[first:][order])


def _ragged(starts: Ints, counts: Ints) -> Ints:
    """The ranges ``starts[i] .. starts[i] + counts[i]`` after one another.

    >>> _ragged(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    positions: Ints = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return positions
