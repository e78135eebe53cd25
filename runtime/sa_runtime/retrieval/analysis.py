"""Where a model fails: rankings, curves, and figures by pair of cameras, size and time.

One pass over the distances beside that of the metrics, with the same protocol. Shape suffixes: Q
queries, G gallery images, K images of a ranking, R recalls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import JUNK, ReidDataset
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.distance import Distances, VectorDistances
from sa_runtime.retrieval.evaluation import RetrievalReport
from sa_runtime.retrieval.groups import Group, by_height, by_time
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.open_set import OpenSetResult, open_set_of_distances
from sa_runtime.retrieval.rerank import RerankedDistances
from sa_runtime.retrieval.vectors import AnyFloats, Ints, VectorRows

RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """What one query found, nearest first.

    Attributes:
        index: (K,) rows of ``dataset.gallery``; images that the protocol leaves out stand among
            them and are not counted.
        distance: (K,).
        first_match: row of the first right image, -1 where the query does not count.
        first_distance: its distance.
    """

    index: Ints
    distance: AnyFloats
    first_match: int
    first_distance: float


@dataclass(frozen=True, kw_only=True)
class CameraPair:
    """Queries of one camera sought among the images of another one alone.

    Attributes:
        query_camera, gallery_camera: counted from 0.
        queries: with a match there.
        mAP: fraction.
        rank1: fraction whose nearest image there is right.
    """

    query_camera: int
    gallery_camera: int
    queries: int
    mAP: float
    rank1: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What one evaluation gave in detail.

    Attributes:
        rankings: of each query of the data set; ``None`` of junk.
        precision: (101,) float64 mean interpolated precision at recalls 0, 0.01, ... 1.
        pairs: of cameras, by query camera, then gallery camera.
        heights: figures by the height of the query's crop in pixels, in four groups.
        times: figures by when the query was taken, as far as file names say.
        open_set: verification and identification at stated rates of wrong ones.
    """

    rankings: tuple[Ranking | None, ...]
    precision: NDArray[np.float64]
    pairs: tuple[CameraPair, ...]
    heights: tuple[Group, ...]
    times: tuple[Group, ...]
    open_set: OpenSetResult

    def to_dict(self) -> dict[str, Any]:
        """The tables for JSON, fractions; rankings are left out."""
        return {
            "camera_pairs": [
                {
                    "query_camera": pair.query_camera,
                    "gallery_camera": pair.gallery_camera,
                    "queries": pair.queries,
                    "mAP": pair.mAP,
                    "rank1": pair.rank1,
                }
                for pair in self.pairs
            ],
            "heights": [group.to_dict() for group in self.heights],
            "times": [group.to_dict() for group in self.times],
            "open_set": self.open_set.to_dict(),
        }


def analyse(
    report: RetrievalReport,
    dataset: ReidDataset,
    *,
    top: int = 10,
    on_progress: Callable[[int], None] | None = None,
) -> Analysis:
    """Look at an evaluation in detail.

    Args:
        report: of the evaluation.
        dataset: that was evaluated.
        top: images of a ranking that count.
        on_progress: called with the number of queries just ranked.

    Raises:
        InputError: another data set than the report's, or ``top`` below 1.
    """
    if top < 1:
        raise bad_value("top", top, "expected at least 1 image")
    if (len(dataset.query), len(dataset.gallery)) != (len(report.query), len(report.gallery)):
        raise InputError(
            f"report of {len(report.query)} queries and {len(report.gallery)} gallery images, data "
            f"set {dataset.name} of {len(dataset.query)} and {len(dataset.gallery)}: expected the "
            "data set that was evaluated"
        )
    kept_Q, kept_G = (
        np.flatnonzero(labels.person != JUNK)
        for labels in (report.query_labels, report.gallery_labels)
    )
    query, gallery = report.query_labels.select(kept_Q), report.gallery_labels.select(kept_G)
    source = _distances(report, kept_Q, kept_G)
    rows = _Rows(query, gallery, kept_G, top)
    for index, row in enumerate(source.rows()):
        rows.add(index, row)
        if on_progress is not None:
            on_progress(1)
    rankings: list[Ranking | None] = [None] * len(dataset.query)
    for index, ranking in zip(kept_Q.tolist(), rows.rankings, strict=True):
        rankings[index] = ranking
    return Analysis(
        rankings=tuple(rankings),
        precision=rows.precision / max(1, report.result.queries_counted),
        pairs=rows.pairs.finish(),
        heights=by_height(report.result, dataset.query),
        times=by_time(report.result, dataset.query),
        open_set=open_set_of_distances(source, query, gallery),
    )


def _distances(report: RetrievalReport, kept_Q: Ints, kept_G: Ints) -> Distances:
    query = VectorRows(report.query, name="query", keep=kept_Q)
    gallery = VectorRows(report.gallery, name="gallery", keep=kept_G)
    if report.reranked is not None:
        return RerankedDistances(query, gallery, report.reranked)
    return VectorDistances(query, gallery)


class _Rows:
    """Takes the distances of query after query."""

    def __init__(self, query: Labels, gallery: Labels, kept_G: Ints, top: int) -> None:
        self._query, self._gallery, self._kept_G, self._top = query, gallery, kept_G, top
        self.rankings: list[Ranking] = []
        self.precision = np.zeros(len(RECALLS))
        self.pairs = _Pairs(gallery.camera)

    def add(self, index: int, row: AnyFloats) -> None:
        """The next query."""
        camera = int(self._query.camera[index])
        mine = self._gallery.person == self._query.person[index]
        same = self._gallery.camera == camera
        matches, removed = np.flatnonzero(mine & ~same), mine & same
        first = int(matches[np.argmin(row[matches])]) if len(matches) else -1
        nearest = _nearest(row, min(len(row), self._top + int(removed.sum())))
        shown = nearest[np.cumsum(~removed[nearest]) <= self._top]
        self.rankings.append(
            Ranking(
                index=self._kept_G[shown],
                distance=row[shown].copy(),
                first_match=int(self._kept_G[first]) if first >= 0 else -1,
                first_distance=float(row[first]) if first >= 0 else np.nan,
            )
        )
        if len(matches):
            self.pairs.add(camera, row, matches)
            self.precision += _interpolated(np.sort(row[matches]), np.sort(row[~removed]))


def _nearest(row: AnyFloats, count: int) -> Ints:
    """The nearest of a row in order, of equals the first."""
    if count < len(row):
        limit = np.partition(row, count - 1)[count - 1]
        within = np.flatnonzero(row <= limit)
    else:
        within = np.arange(len(row))
    nearest: Ints = within[np.argsort(row[within], kind="stable")[:count]]
    return nearest


def _interpolated(mine: AnyFloats, all_sorted: AnyFloats) -> NDArray[np.float64]:
    """The best precision at each recall or beyond it."""
    hits = np.searchsorted(mine, mine, side="right")
    precision = hits / np.searchsorted(all_sorted, mine, side="right")
    best = np.maximum.accumulate(precision[::-1])[::-1]
    needed = np.maximum(np.ceil(RECALLS * len(mine) - 1e-9).astype(np.int64), 1)
    interpolated: NDArray[np.float64] = best[needed - 1]
    return interpolated


class _Pairs:
    """Average precision and first ranks of queries within one gallery camera after another."""

    def __init__(self, camera: Ints) -> None:
        self._camera = camera
        self._images = {int(c): np.flatnonzero(camera == c) for c in np.unique(camera)}
        self._sums: dict[tuple[int, int], NDArray[np.float64]] = {}

    def add(self, query_camera: int, row: AnyFloats, matches: Ints) -> None:
        """A query with its matches."""
        of_match = self._camera[matches]
        for camera in np.unique(of_match).tolist():
            mine = np.sort(row[matches[of_match == camera]])
            around = np.sort(row[self._images[camera]])
            hits = np.searchsorted(mine, mine, side="right")
            within = np.searchsorted(around, mine, side="right")
            first = float(within[0] == hits[0])
            sums = self._sums.setdefault((query_camera, camera), np.zeros(3))
            sums += (1, float(np.mean(hits / within)), first)

    def finish(self) -> tuple[CameraPair, ...]:
        """Means, in the order of the cameras."""
        return tuple(
            CameraPair(
                query_camera=query,
                gallery_camera=gallery,
                queries=int(count),
                mAP=float(precision / count),
                rank1=float(first / count),
            )
            for (query, gallery), (count, precision, first) in sorted(self._sums.items())
        )


def worst_pairs(pairs: Sequence[CameraPair]) -> list[CameraPair]:
    """Pairs of cameras, the lowest mAP first."""
    return sorted(pairs, key=lambda pair: pair.mAP)
