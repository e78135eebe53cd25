"""Open-set figures: how often the right pairs are accepted at a stated rate of wrong ones.

Verification looks at pairs: a genuine pair is one person under two cameras, an impostor pair two
persons. Identification looks at searches: a query whose person is in the gallery, and the same
query with that person taken out of it. Junk is dropped; distractors (person 0) are impostors to
everyone; images of the query's person under the query's camera are neither, as in
:mod:`sa_runtime.retrieval.metrics`.

A pair is accepted where its distance lies below a threshold, never at it: of equal distances all
are accepted or none, so that no figure depends on the gallery's order. Shape suffixes: Q queries,
G gallery images, R rates, P genuine pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import JUNK
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.distance import MEMORY_BYTES, Distances, Metric, VectorDistances
from sa_runtime.retrieval.labels import Labels, without_junk
from sa_runtime.retrieval.vectors import AnyFloats, Ints, Vectors

RATES = (1e-2, 1e-3, 1e-4)
"""False-positive rates that are reported."""
CURVE_POINTS = 200
_BINS = 2**20
_SHIFT = 12
"""Bits of a float32 that its bin leaves out: a bin is 0.05 % of its distance wide."""
_AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class Roc:
    """True-positive rates over false-positive rates.

    Attributes:
        fpr: (N,) float64, ascending, from the smallest that can be measured to 1.
        tpr: (N,) float64 at most that many false positives; exact up to the largest rate that was
            asked for, beyond it as fine as distances that differ by 0.05 %.
        threshold: (N,) float64; pairs below it are accepted.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenSetResult:
    """Figures of one evaluation; a rate that too few pairs or searches can show is NaN.

    Attributes:
        rates: (R,) false-positive rates that were asked for.
        tpr: (R,) fraction of the genuine pairs accepted at that rate of the impostor pairs.
        threshold: (R,) distance below which a pair is accepted.
        dir: (R,) detection-and-identification rate: the fraction of the searches whose nearest
            image is the right person and accepted, at that rate of searches which accept anybody
            although the person is not in the gallery (FPIR).
        dir_threshold: (R,) distance below which a search's nearest image is accepted.
        genuine: (P,) distances of the genuine pairs, ascending.
        impostor_pairs: their number.
        searches: queries with a match in the gallery.
        roc: the curve.
    """

    rates: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]
    dir: NDArray[np.float64]
    dir_threshold: NDArray[np.float64]
    genuine: AnyFloats
    impostor_pairs: int
    searches: int
    roc: Roc
    _impostors: Ints

    def impostor_histogram(self, edges: NDArray[np.floating[Any]]) -> Ints:
        """Impostor pairs between edges.

        Args:
            edges: (N + 1,) distances, ascending.

        Returns:
            (N,) counts of ``edges[i] <= distance < edges[i + 1]``, where pairs within 0.05 % of an
            edge may count on either side of it.
        """
        below = np.concatenate([[0], np.cumsum(self._impostors)])
        return np.diff(below[_bin(np.asarray(edges, np.float32))])

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON; ``None`` stands for what cannot be measured."""
        return {
            "genuine_pairs": len(self.genuine),
            "impostor_pairs": self.impostor_pairs,
            "searches": self.searches,
            "at": [
                {
                    "rate": float(self.rates[index]),
                    "tpr": _number(self.tpr[index]),
                    "threshold": _number(self.threshold[index]),
                    "dir": _number(self.dir[index]),
                    "dir_threshold": _number(self.dir_threshold[index]),
                }
                for index in range(len(self.rates))
            ],
        }


def evaluate_open_set(
    query: Vectors,
    query_labels: Labels,
    gallery: Vectors,
    gallery_labels: Labels,
    *,
    rates: Sequence[float] = RATES,
    metric: Metric = "euclidean",
    memory_bytes: int = MEMORY_BYTES,
) -> OpenSetResult:
    """Open-set figures of some vectors.

    Args:
        query: (Q, D) vectors.
        query_labels: of the Q queries.
        gallery: (G, D) vectors.
        gallery_labels: of the G images.
        rates: false-positive rates, each above 0 and at most 1.
        metric: what distances are.
        memory_bytes: working memory of the distances; beside it the genuine pairs are held, and
            that share of the impostor pairs which the largest rate is.

    Raises:
        InputError: vectors and labels that do not fit, a rate out of range, or no genuine or no
            impostor pair.

    >>> labels = Labels(person=np.array([1, 2]), camera=np.array([0, 0]))
    >>> others = Labels(person=np.array([2, 1, 1]), camera=np.array([1, 1, 0]))
    >>> query, gallery = np.eye(2), np.array([[0.0, 1.0], [0.8, 0.6], [1.0, 0.0]])
    >>> result = evaluate_open_set(query, labels, gallery, others, rates=(0.5,))
    >>> result.tpr.tolist(), result.dir.tolist()
    ([1.0], [1.0])
    """
    query_rows, query_labels, _ = without_junk(query, query_labels, "query")
    gallery_rows, gallery_labels, _ = without_junk(gallery, gallery_labels, "gallery")
    return open_set_of_distances(
        VectorDistances(query_rows, gallery_rows, metric),
        query_labels,
        gallery_labels,
        rates=rates,
        memory_bytes=memory_bytes,
    )


def open_set_of_distances(
    source: Distances,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    rates: Sequence[float] = RATES,
    memory_bytes: int = MEMORY_BYTES,
) -> OpenSetResult:
    """Open-set figures of distances that something else computes; see :func:`evaluate_open_set`.

    Args:
        source: float32 or float64 distances; the smaller the nearer.
        query_labels: of the Q queries, without junk.
        gallery_labels: of the G images, without junk.
        rates: false-positive rates.
        memory_bytes: working memory of the distances.

    Raises:
        InputError: labels that do not fit or hold junk, a rate out of range, distances that are
            not finite, or no genuine or no impostor pair.
    """
    asked = _checked(source, query_labels, gallery_labels, rates)
    same = _SamePerson(query_labels, gallery_labels)
    pairs = source.shape[0] * source.shape[1] - same.pairs
    tail = _Smallest(int(asked.max() * pairs) + 1 if len(asked) else 1)
    counts = _Counts()
    genuine: list[AnyFloats] = [np.empty(0, np.float32)]
    nearest = np.full((2, source.shape[0]), np.inf)
    for index, row in enumerate(source.rows(memory_bytes)):
        mine, other_camera = same.of(index)
        matches = row[mine[other_camera]]
        impostors = np.delete(row, mine) if len(mine) else row
        if not (np.isfinite(matches).all() and np.isfinite(impostors).all()):
            raise InputError(
                f"distances of query {index} hold a value that is not finite: expected finite ones"
            )
        genuine.append(matches)
        tail.add(impostors)
        counts.add(impostors)
        nearest[:, index] = matches.min(initial=np.inf), impostors.min(initial=np.inf)
    found = np.sort(np.concatenate(genuine))
    if not len(found) or not pairs:
        missing, way_out = (
            ("genuine pair", "images of a query's person under another camera")
            if not len(found)
            else ("impostor pair", "images of other persons than the queries'")
        )
        raise InputError(f"no {missing}: expected gallery {way_out}; check the labels")
    smallest = tail.sorted()
    threshold = _thresholds(smallest, pairs, asked)
    searched = nearest[:, np.isfinite(nearest[0])]
    dir_threshold = _thresholds(np.sort(searched[1]), searched.shape[1], asked)
    found_first = np.where(searched[0] < searched[1], searched[0], np.inf)
    return OpenSetResult(
        rates=asked,
        tpr=_below(found, threshold) / len(found),
        threshold=threshold,
        dir=_below(np.sort(found_first), dir_threshold) / searched.shape[1],
        dir_threshold=dir_threshold,
        genuine=found,
        impostor_pairs=pairs,
        searches=searched.shape[1],
        roc=_roc(found, smallest, counts.finish(), pairs),
        _impostors=counts.finish(),
    )


def _checked(
    source: Distances, query: Labels, gallery: Labels, rates: Sequence[float]
) -> NDArray[np.float64]:
    if source.shape != (len(query), len(gallery)):
        raise InputError(
            f"distances of shape {source.shape} but labels of {len(query)} queries and "
            f"{len(gallery)} gallery images: expected one for each"
        )
    for name, labels in (("query", query), ("gallery", gallery)):
        if np.any(labels.person == JUNK):
            raise InputError(
                f"{name} labels hold junk (person {JUNK}): leave its rows out of the distances, "
                "as evaluate_open_set() does"
            )
    for rate in rates:
        if not 0 < rate <= 1:
            raise bad_value("rates", rate, "expected false-positive rates above 0 and at most 1")
    return np.array(rates, np.float64)


class _SamePerson:
    """Every query's gallery images of its own person; a distractor is nobody's.

    Attributes:
        pairs: of a query and an image of its person, under whatever camera.
    """

    def __init__(self, query: Labels, gallery: Labels) -> None:
        self._query, self._camera = query, gallery.camera
        self._order = np.argsort(gallery.person, kind="stable")
        person = gallery.person[self._order]
        self._first = np.searchsorted(person, query.person, side="left")
        self._last = np.searchsorted(person, query.person, side="right")
        self._last = np.where(query.person == 0, self._first, self._last)
        self.pairs = int((self._last - self._first).sum())

    def of(self, query: int) -> tuple[Ints, NDArray[np.bool_]]:
        """Images of the person, and which of them another camera took."""
        mine = self._order[self._first[query] : self._last[query]]
        return mine, self._camera[mine] != self._query.camera[query]


class _Smallest:
    """The ``count`` smallest of all numbers that pass."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[AnyFloats] = []
        self._size = 0
        self._limit = np.inf

    def add(self, values: AnyFloats) -> None:
        below = values[values < self._limit] if np.isfinite(self._limit) else values.copy()
        self._held.append(below)
        self._size += len(below)
        if self._size > 2 * self._count + _AT_ONCE:
            self._cut()

    def sorted(self) -> AnyFloats:
        """(min(count, all),) ascending."""
        self._cut()
        return np.sort(self._held[0])

    def _cut(self) -> None:
        values = np.concatenate(self._held) if self._held else np.empty(0, np.float32)
        if len(values) > self._count:
            values = np.partition(values, self._count - 1)[: self._count]
            self._limit = float(values.max())
        self._held, self._size = [values], len(values)


class _Counts:
    """How many distances fall into each of a million bins, whose edges are fixed."""

    def __init__(self) -> None:
        self._total = np.zeros(_BINS, np.int64)
        self._waiting: list[NDArray[np.int64]] = []
        self._size = 0

    def add(self, values: AnyFloats) -> None:
        self._waiting.append(_bin(values.astype(np.float32, copy=False)))
        self._size += len(values)
        if self._size > _AT_ONCE:
            self.finish()

    def finish(self) -> Ints:
        if self._waiting:
            self._total += np.bincount(np.concatenate(self._waiting), minlength=_BINS)
            self._waiting, self._size = [], 0
        return self._total


def _bin(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each number; bins ascend as the numbers do."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.int32).astype(np.int64)
    # The bits of positive floats order as the floats do, those of negative ones the other way.
    ordered = np.where(bits < 0, ~bits & 0xFFFFFFFF, bits + 2**31)
    return ordered >> _SHIFT


def _lower_edges() -> NDArray[np.float64]:
    """The smallest number of each bin."""
    ordered = np.arange(_BINS, dtype=np.int64) << _SHIFT
    bits = np.where(ordered < 2**31, ~ordered & 0xFFFFFFFF, ordered - 2**31)
    with np.errstate(invalid="ignore"):
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _thresholds(smallest: AnyFloats, total: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest thresholds that accept at most ``rates * total`` of the wrong ones.

    Args:
        smallest: the smallest of their distances, ascending.
        total: number of all of them.
        rates: (R,).

    Returns:
        (R,); infinity where all may be accepted, NaN where not even one may.
    """
    # What is a whole number up to rounding counts as that number.
    allowed = np.floor(rates * total * (1 + 1e-12)).astype(np.int64)
    padded = np.concatenate([smallest.astype(np.float64), [np.inf]])
    threshold = padded[np.minimum(allowed, len(smallest))]
    return np.where(allowed > 0, threshold, np.nan)


def _below(ascending: AnyFloats, threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many lie below each threshold; NaN for a threshold that is none."""
    count = np.searchsorted(ascending, threshold, side="left").astype(np.float64)
    # An infinite threshold accepts what is infinitely far (a search that found nobody) as little.
    count = np.minimum(count, np.count_nonzero(np.isfinite(ascending)))
    return np.where(np.isnan(threshold), np.nan, count)


def _roc(genuine: AnyFloats, smallest: AnyFloats, counts: Ints, pairs: int) -> Roc:
    fpr = np.unique(np.geomspace(1 / pairs, 1, CURVE_POINTS))
    allowed = np.floor(fpr * pairs * (1 + 1e-12)).astype(np.int64)
    threshold = np.full(len(fpr), np.inf)
    exact = allowed < len(smallest)
    threshold[exact] = smallest[allowed[exact]]
    # Of the others, the lower edge of the bin in which the first pair lies that is one too many.
    others = ~exact & (allowed < pairs)
    holds_it = np.searchsorted(np.cumsum(counts), allowed[others], side="right")
    threshold[others] = _lower_edges()[holds_it]
    return Roc(fpr=fpr, tpr=_below(genuine, threshold) / len(genuine), threshold=threshold)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
