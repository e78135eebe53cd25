"""Retrieval metrics by the protocol of Market-1501: mAP, mINP and the three CMC conventions.

Per query, gallery images of the same person under the same camera are removed; junk (person -1) is
dropped everywhere; distractors (person 0, whom no query seeks) stay. A query without a remaining
match is skipped.

Equal distances form one group, which is entered as a whole: among equals the wrong images come
first. So no figure depends on the order of the gallery, and vectors that are all equal score worst
instead of by luck. Shape suffixes: Q queries, G gallery images, R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import JUNK
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.distance import MEMORY_BYTES, Distances, Metric, VectorDistances
from sa_runtime.retrieval.labels import Labels, without_junk
from sa_runtime.retrieval.rerank import RerankedDistances, Reranking
from sa_runtime.retrieval.vectors import AnyFloats, Ints, Vectors

Convention = Literal["market1501", "allshots", "cuhk03"]
"""How a CMC curve counts, after the authors' ``cmc()``.

``market1501``: 1 from the rank of the first match on. ``allshots``: each of m matches adds 1/m at
the number of wrong images before it. ``cuhk03``: images of the query's camera are removed too, and
the mean is taken over draws of one image for each person left in the gallery.
"""
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
SINGLE_SHOT_DRAWS = 10
_PASS, _SORT, _COPY = 8192, 128, 60
"""Of counting within a distance: what a pass costs beside its numbers, in numbers; and passes that
cost what sorting costs, and what choosing numbers costs for each that is chosen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalResult:
    """Figures of one evaluation, as fractions from 0 to 1.

    Attributes:
        mAP: mean average precision, in the step form with ties grouped (scikit-learn >= 0.19).
        mINP: mean of matches / rank of the last match.
        cmc: (R,) float64 for each convention: the fraction found within rank 1..R. A gallery of
            fewer than R images repeats its last value.
        average_precision: (Q,) float64 of each query; NaN where it does not count.
        first_rank: (Q,) int64 rank of the first match, from 1; 0 where the query does not count.
        inverse_penalty: (Q,) float64 matches / rank of the last match; NaN where it does not count.
        matches: (Q,) int64 gallery images of the query's person that are left.
        queries_counted: queries with at least one match left.
        queries_skipped: queries without, left out of every mean.
        gallery_images: without junk.
        junk: queries and gallery images that were dropped.
    """

    mAP: float
    mINP: float
    cmc: Mapping[Convention, NDArray[np.float64]]
    average_precision: NDArray[np.float64]
    first_rank: Ints
    inverse_penalty: NDArray[np.float64]
    matches: Ints
    queries_counted: int
    queries_skipped: int
    gallery_images: int
    junk: int = 0

    def rank(self, k: int, convention: Convention | None = None) -> float:
        """Value of a CMC curve at rank ``k`` (from 1); of the first convention if none is named.

        Raises:
            InputError: a rank beyond the curve, or a convention that was not evaluated.
        """
        name = next(iter(self.cmc)) if convention is None else convention
        if name not in self.cmc:
            raise InputError(
                f"CMC convention {name!r}: evaluated were {', '.join(self.cmc)}; "
                "name it in `conventions`"
            )
        curve = self.cmc[name]
        if not 1 <= k <= len(curve):
            raise InputError(f"rank {k}: expected 1 to {len(curve)}; raise `max_rank`")
        return float(curve[k - 1])


def evaluate_vectors(
    query: Vectors,
    query_labels: Labels,
    gallery: Vectors,
    gallery_labels: Labels,
    *,
    metric: Metric = "euclidean",
    rerank: Reranking | None = None,
    conventions: Sequence[Convention] = ("market1501",),
    max_rank: int = 100,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> RetrievalResult:
    """Retrieval figures of some vectors.

    Args:
        query: (Q, D) vectors.
        query_labels: of the Q queries.
        gallery: (G, D) vectors.
        gallery_labels: of the G images.
        metric: what ranks; without effect on vectors of unit length.
        rerank: re-rank by k-reciprocal neighbours first, on squared Euclidean distances.
        conventions: CMC curves wanted.
        max_rank: length R of the curves.
        seed: of the draws of ``cuhk03``.
        memory_bytes: working memory beside the vectors themselves and a few numbers an image
            (some 64 bytes each); re-ranking adds its sparse state.

    Raises:
        InputError: vectors and labels that do not fit, or no query with a match.

    >>> labels = Labels(person=np.array([1, 2]), camera=np.array([0, 0]))
    >>> others = Labels(person=np.array([2, 1, 1]), camera=np.array([1, 1, 0]))
    >>> query, gallery = np.eye(2), np.array([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    >>> result = evaluate_vectors(query, labels, gallery, others)
    >>> result.mAP, result.rank(1), result.queries_counted
    (1.0, 1.0, 2)
    """
    query_rows, query_labels, query_kept = without_junk(query, query_labels, "query")
    gallery_rows, gallery_labels, _ = without_junk(gallery, gallery_labels, "gallery")
    source: Distances
    if rerank is None:
        source = VectorDistances(query_rows, gallery_rows, metric)
    else:
        source = RerankedDistances(query_rows, gallery_rows, rerank, memory_bytes=memory_bytes)
    result = evaluate_distances(
        source,
        query_labels,
        gallery_labels,
        conventions=conventions,
        max_rank=max_rank,
        seed=seed,
        memory_bytes=memory_bytes,
    )
    fractions = np.full((2, len(query)), np.nan)
    fractions[:, query_kept] = result.average_precision, result.inverse_penalty
    counts = np.zeros((2, len(query)), np.int64)
    counts[:, query_kept] = result.first_rank, result.matches
    return replace(
        result,
        average_precision=fractions[0],
        inverse_penalty=fractions[1],
        first_rank=counts[0],
        matches=counts[1],
        junk=len(query) - len(query_rows) + len(gallery) - len(gallery_rows),
    )


def evaluate_distances(
    source: Distances,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    conventions: Sequence[Convention] = ("market1501",),
    max_rank: int = 100,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> RetrievalResult:
    """Retrieval figures of distances that something else computes; see :func:`evaluate_vectors`.

    Args:
        source: float32 or float64 distances, also negative ones; the smaller the nearer.
        query_labels: of the Q queries, without junk.
        gallery_labels: of the G images, without junk.
        conventions: CMC curves wanted.
        max_rank: length R of the curves.
        seed: of the draws of ``cuhk03``.
        memory_bytes: working memory of the distances.

    Raises:
        InputError: labels that do not fit or hold junk, distances that are not finite, or no query
            with a match.
    """
    _check(source, query_labels, gallery_labels, conventions, max_rank)
    if seed < 0:
        raise bad_value("seed", seed, "expected 0 or more")
    candidates = _Candidates(query_labels, gallery_labels)
    curves = {name: np.zeros(max_rank) for name in conventions}
    average_precision = np.full(len(query_labels), np.nan)
    inverse_penalty = average_precision.copy()
    first_rank, left = np.zeros((2, len(query_labels)), np.int64)
    rng = np.random.default_rng(seed)
    for index, row in enumerate(source.rows(memory_bytes)):
        matches, removed = candidates.of(index)
        if not len(matches):
            continue
        if "cuhk03" in curves:
            others = gallery_labels.camera != query_labels.camera[index]
            curves["cuhk03"] += _single_shot(
                row[others], candidates.rank[others], candidates.wanted[index], rng, max_rank
            )
        hits, within = _counts(row, matches, removed, index)
        wrong = within - hits
        average_precision[index] = np.mean(hits / within)
        first_rank[index] = wrong[0] + 1
        inverse_penalty[index] = len(matches) / within[-1]
        left[index] = len(matches)
        if "allshots" in curves:
            seen = wrong[wrong < max_rank]
            curves["allshots"] += np.bincount(seen, minlength=max_rank) / len(matches)
    counted = int(np.count_nonzero(first_rank))
    if not counted:
        raise InputError(_no_match(query_labels, gallery_labels))
    if "market1501" in curves:
        seen = first_rank[(first_rank > 0) & (first_rank <= max_rank)] - 1
        curves["market1501"] += np.bincount(seen, minlength=max_rank)
    return RetrievalResult(
        mAP=float(np.nanmean(average_precision)),
        mINP=float(np.nanmean(inverse_penalty)),
        cmc={name: np.cumsum(curve) / counted for name, curve in curves.items()},
        average_precision=average_precision,
        first_rank=first_rank,
        inverse_penalty=inverse_penalty,
        matches=left,
        queries_counted=counted,
        queries_skipped=len(query_labels) - counted,
        gallery_images=len(gallery_labels),
    )


class _Candidates:
    """Looks up a person's gallery images without comparing every query to every image.

    Attributes:
        rank: (G,) persons of the gallery by rank: any integers become small ones.
        wanted: (Q,) the queries' persons, likewise; of one who is not in the gallery, any.
    """

    def __init__(self, query: Labels, gallery: Labels) -> None:
        self._query_camera, self._camera = query.camera.tolist(), gallery.camera
        known, self.rank = np.unique(gallery.person, return_inverse=True)
        self.wanted: list[int] = np.searchsorted(known, query.person).tolist()
        self._order = np.argsort(gallery.person, kind="stable")
        person = gallery.person[self._order]
        self._first: list[int] = np.searchsorted(person, query.person, side="left").tolist()
        self._last: list[int] = np.searchsorted(person, query.person, side="right").tolist()

    def of(self, query: int) -> tuple[Ints, Ints]:
        """The person's images under other cameras (the matches), and under this one (removed)."""
        images = self._order[self._first[query] : self._last[query]]
        same = self._camera[images] == self._query_camera[query]
        return images[~same], images[same]


def _counts(row: AnyFloats, matches: Ints, removed: Ints, query: int) -> tuple[Ints, Ints]:
    """For each match, nearest first: matches, and all images, no further away than it.

    Overwrites ``row``, with infinity for the removed images. Of the rest only what is no further
    away than the last match is counted, which takes a pass for each match, or sorted where that is
    faster, so that a binary search counts. It is copied first where so many passes are saved time.
    """
    mine = np.sort(row[matches])
    row[removed] = np.inf
    if np.count_nonzero(np.isfinite(row)) != len(row) - len(removed):
        raise InputError(
            f"distances of query {query} hold a value that is not finite: expected finite ones"
        )
    near = row <= mine[-1]
    size = np.count_nonzero(near)
    if len(mine) * (len(row) - size) > _COPY * size:
        row = row[near]
        near = near[:size]
    if len(mine) * (len(row) + _PASS) > _SORT * len(row):
        row.sort()
        within = np.searchsorted(row, mine, side="right")
    else:
        passes = (np.count_nonzero(np.less_equal(row, x, out=near)) for x in mine[:-1])
        within = np.array([*passes, size])
    return np.searchsorted(mine, mine, side="right"), within


def _single_shot(
    distance: AnyFloats, person_rank: Ints, wanted: int, rng: np.random.Generator, max_rank: int
) -> NDArray[np.float64]:
    """Where the wanted person lands in draws of one image for each person: (R,) summing to 1."""
    # One 64-bit key sorts by person, then distance. Drawing from sorted images makes the draw
    # independent of the gallery's order.
    key = np.sort((person_rank.astype(np.uint64) << np.uint64(32)) | _ordered_bits(distance))
    person_sorted = key >> np.uint64(32)
    starts = np.flatnonzero(np.diff(person_sorted, prepend=person_sorted[0] + np.uint64(1)))
    counts = np.diff(starts, append=len(key))
    mine = int(np.searchsorted(person_sorted[starts], np.uint64(wanted)))
    drawn = starts + (rng.random((SINGLE_SHOT_DRAWS, len(starts))) * counts).astype(np.int64)
    value = (key & np.uint64(0xFFFFFFFF))[drawn]
    position = (value <= value[:, mine : mine + 1]).sum(axis=1) - 1
    seen = position[position < max_rank]
    return np.bincount(seen, minlength=max_rank) / SINGLE_SHOT_DRAWS


def _ordered_bits(distance: AnyFloats) -> NDArray[np.uint32]:
    """Numbers of 32 bits that order as the distances do: of float64 ones, their ranks."""
    if distance.dtype != np.float32:
        _, rank = np.unique(distance, return_inverse=True)
        return rank.astype(np.uint32)
    # The bits of positive floats order as the floats do, those of negative ones the other way
    # round (adding 0 makes -0 a 0).
    bits = np.ascontiguousarray(distance + np.float32(0)).view(np.int32)
    flipped: NDArray[np.uint32] = np.where(bits < 0, ~bits, bits | np.int32(-(2**31))).view(
        np.uint32
    )
    return flipped


def check_conventions(names: Sequence[str]) -> tuple[Convention, ...]:
    """The CMC conventions of these names.

    Raises:
        InputError: an unknown name, or none.

    >>> check_conventions(["allshots"])
    ('allshots',)
    """
    if unknown := [name for name in names if name not in CONVENTIONS]:
        raise InputError(
            f"CMC convention {unknown[0]!r}: unknown; choose from {', '.join(CONVENTIONS)}"
        )
    if not names:
        raise InputError(f"no CMC convention given: choose from {', '.join(CONVENTIONS)}")
    return tuple(name for name in CONVENTIONS if name in names)


def _check(
    source: Distances,
    query: Labels,
    gallery: Labels,
    conventions: Sequence[Convention],
    max_rank: int,
) -> None:
    if source.shape != (len(query), len(gallery)):
        raise InputError(
            f"distances of shape {source.shape} but labels of {len(query)} queries and "
            f"{len(gallery)} gallery images: expected one for each"
        )
    if max_rank < 1:
        raise bad_value("max_rank", max_rank, "expected at least 1")
    check_conventions(conventions)
    for name, labels in (("query", query), ("gallery", gallery)):
        if np.any(labels.person == JUNK):
            raise InputError(
                f"{name} labels hold junk (person {JUNK}): leave its rows out of the distances, "
                "as evaluate_vectors() does"
            )


def _no_match(query: Labels, gallery: Labels) -> str:
    shared = len(np.intersect1d(query.person, gallery.person))
    return (
        f"no query has a match: {len(query)} queries, {len(gallery)} gallery images, {shared} "
        "persons in both, none of them under another camera than the query's. Expected gallery "
        "images of the query's person from another camera; check persons and cameras with "
        "`sa-deploy data check`"
    )
