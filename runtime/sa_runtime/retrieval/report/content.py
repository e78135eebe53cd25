"""What a report holds, as plain values: figures, curves, tables, and rankings of queries."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.retrieval.analysis import Analysis
from sa_runtime.retrieval.comparison import Comparison
from sa_runtime.retrieval.evaluation import RetrievalReport
from sa_runtime.retrieval.groups import heights_of

_RANKS = 50
_BINS = 60
_DIGITS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """A model's evaluation with its analysis.

    Attributes:
        report: the figures.
        analysis: what they are made of.
    """

    report: RetrievalReport
    analysis: Analysis


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What a page holds.

    Attributes:
        data: for JSON; images are numbers, places in ``images``.
        images: files whose pictures the page shows, query after query with what it found.
        ends: how many of them each further query needs.
    """

    data: dict[str, Any]
    images: list[Path]
    ends: Sequence[int] = ()

    def whole(self, most: int) -> int:
        """At most so many of the images, without the rest of a ranking.

        >>> Content(data={}, images=[], ends=[12, 20, 31]).whole(25)
        20
        """
        return max((end for end in self.ends if end <= most), default=0)


def content_of(
    dataset: ReidDataset,
    models: Sequence[Evaluated],
    comparisons: Sequence[Comparison],
    *,
    most_images: int,
) -> Content:
    """Bring evaluations of one data set into the form of a page.

    Args:
        dataset: that was evaluated.
        models: one or more.
        comparisons: of the further models with the first one.
        most_images: pictures at most; queries are taken in turns from the worst, the best, the
            median and the ones that the models disagree on, until their rankings hold as many.
    """
    pictures = _Pictures(dataset)
    counted = np.flatnonzero(models[0].report.result.first_rank)
    shown, ends = set(), []
    for query in _order(models, counted):
        if not pictures.take(query, models, most_images):
            break
        shown.add(query)
        ends.append(len(pictures))
    queries = dataset.query
    heights = heights_of(queries)
    cameras = _cameras_by_person(models[0].report)
    data = {
        "dataset": dataset.name,
        "counts": {
            "queries": len(queries),
            "counted": len(counted),
            "skipped": models[0].report.result.queries_skipped,
            "gallery": models[0].report.result.gallery_images,
            "people": len(np.unique(models[0].report.query_labels.person[counted])),
            "shown": len(shown),
        },
        "models": [_model(one) for one in models],
        "comparisons": [found.to_dict() for found in comparisons],
        "queries": [
            {
                "file": _inner(queries[index].path, dataset.root),
                "person": queries[index].person,
                "camera": queries[index].camera,
                "height": int(heights[index]),
                "others": sorted(
                    cameras.get(queries[index].person, set()) - {queries[index].camera}
                ),
                "matches": int(models[0].report.result.matches[index]),
                "image": pictures.query(index) if index in shown else -1,
                "found": [_found(one, index, pictures, index in shown) for one in models],
            }
            for index in counted.tolist()
        ],
        "images": pictures.labels(),
    }
    return Content(data=data, images=pictures.paths, ends=ends)


class _Pictures:
    """Numbers the images that the page shows."""

    def __init__(self, dataset: ReidDataset) -> None:
        self._dataset = dataset
        self._numbers: dict[tuple[str, int], int] = {}

    def take(self, query: int, models: Sequence[Evaluated], most: int) -> bool:
        """Take a query with its rankings, if all of it fits."""
        wanted = {("query", query)}
        for one in models:
            ranking = one.analysis.rankings[query]
            if ranking is not None:
                wanted |= {("gallery", int(row)) for row in ranking.index}
                wanted.add(("gallery", ranking.first_match))
        new = sorted(wanted - self._numbers.keys())
        if len(self._numbers) + len(new) > most:
            return False
        for key in new:
            self._numbers[key] = len(self._numbers)
        return True

    def query(self, index: int) -> int:
        """The number of a query's image."""
        return self._numbers["query", index]

    def gallery(self, index: int) -> int:
        """The number of a gallery image."""
        return self._numbers["gallery", index]

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def paths(self) -> list[Path]:
        """Files by number."""
        return [self._dataset.split(side)[index].path for side, index in self._keys()]

    def labels(self) -> list[list[Any]]:
        """Name, person and camera by number."""
        samples = [self._dataset.split(side)[index] for side, index in self._keys()]
        root = self._dataset.root
        return [[_inner(one.path, root), one.person, one.camera] for one in samples]

    def _keys(self) -> Iterator[tuple[Any, int]]:
        return iter(self._numbers)


def _cameras_by_person(report: RetrievalReport) -> dict[int, set[int]]:
    """The cameras that each person of the gallery is seen by."""
    labels = report.gallery_labels
    found: dict[int, set[int]] = {}
    for person, camera in zip(labels.person.tolist(), labels.camera.tolist(), strict=True):
        found.setdefault(person, set()).add(camera)
    return found


def _order(models: Sequence[Evaluated], counted: NDArray[np.int64]) -> Iterator[int]:
    """Queries, in turns the worst, the best, the median, and the most contested one."""
    precision = np.stack([one.report.result.average_precision[counted] for one in models])
    mean = precision.mean(axis=0)
    orders = [np.argsort(mean, kind="stable"), np.argsort(-mean, kind="stable")]
    orders.append(np.argsort(np.abs(mean - np.median(mean)), kind="stable"))
    if len(models) > 1:
        orders.append(np.argsort(-np.ptp(precision, axis=0), kind="stable"))
    seen: set[int] = set()
    for place in itertools.chain.from_iterable(zip(*orders, strict=True)):
        if int(place) not in seen:
            seen.add(int(place))
            yield int(counted[place])


def _model(one: Evaluated) -> dict[str, Any]:
    report, analysis = one.report, one.analysis
    result, open_set = report.result, analysis.open_set
    intervals = report.intervals()
    curve = next(iter(result.cmc.values()))[:_RANKS]
    return {
        "name": report.name,
        "runtime": report.runtime,
        "precision": report.precision,
        "dim": int(report.query.shape[1]),
        "reranked": report.reranked is not None,
        "expanded": report.expanded is not None,
        "figures": {
            name: [value, intervals[name].low, intervals[name].high]
            if name in intervals
            else [value, None, None]
            for name, value in report.figures().items()
        },
        "convention": next(iter(result.cmc)),
        "cmc": _rounded(curve),
        "pr": _rounded(analysis.precision),
        "roc": {"fpr": open_set.roc.fpr.tolist(), "tpr": _rounded(open_set.roc.tpr)},
        "histogram": _histogram(analysis),
        "tables": analysis.to_dict(),
    }


def _histogram(analysis: Analysis) -> dict[str, Any]:
    """Shares of the genuine and of the impostor pairs between equally wide edges."""
    open_set = analysis.open_set
    curve = open_set.roc.threshold
    furthest = float(max(curve[np.isfinite(curve)].max(initial=0.0), open_set.genuine[-1]))
    # Thresholds end where nearly all is accepted; the rest goes into the last bin.
    nearest = min(0.0, float(open_set.genuine[0]))
    edges = np.linspace(nearest, furthest if furthest > nearest else nearest + 1, _BINS + 1)
    genuine = np.histogram(open_set.genuine, edges)[0]
    impostor = open_set.impostor_histogram(edges)
    return {
        "edges": [float(f"{edge:.5g}") for edge in edges],
        "genuine": _rounded(genuine / max(1, len(open_set.genuine)), 6),
        "impostor": _rounded(impostor / max(1, open_set.impostor_pairs), 6),
    }


def _found(one: Evaluated, query: int, pictures: _Pictures, shown: bool) -> dict[str, Any]:
    result, ranking = one.report.result, one.analysis.rankings[query]
    found: dict[str, Any] = {
        "ap": round(float(result.average_precision[query]), _DIGITS),
        "rank": int(result.first_rank[query]),
    }
    if shown and ranking is not None:
        found["list"] = [
            [pictures.gallery(int(row)), round(float(distance), _DIGITS)]
            for row, distance in zip(ranking.index, ranking.distance, strict=True)
        ]
        found["first"] = [
            pictures.gallery(ranking.first_match),
            round(ranking.first_distance, _DIGITS),
        ]
    return found


def _inner(path: Path, root: Path) -> str:
    """A file's name below its data set."""
    name = os.fspath(path.relative_to(root) if path.is_relative_to(root) else path.name)
    return name.encode("utf-8", "replace").decode()


def _rounded(values: NDArray[Any], digits: int = _DIGITS) -> list[float]:
    return [round(float(value), digits) for value in values]
