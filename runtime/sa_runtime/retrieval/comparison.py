"""Two models on the same queries: differences, called real or noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sa_runtime.errors import InputError
from sa_runtime.retrieval.bootstrap import DRAWS, LEVEL, intervals, query_figures
from sa_runtime.retrieval.evaluation import RetrievalReport

Verdict = Literal["real", "noise"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of a model less that of its base, as fractions.

    Attributes:
        value: positive where the model is better.
        low, high: interval of it over people.
        verdict: ``real`` where the interval leaves 0 out, else ``noise``.
    """

    value: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model against its base on one data set.

    It never changes, so that threads may share it.

    Attributes:
        base, model: what they are called.
        dataset: its name.
        differences: by figure: ``mAP``, ``rank1``, ``rank5``, ``rank10``, ``mINP``.
        level: share of such comparisons in which every interval of a figure holds the truth; where
            several models are compared with one base, of all of them together (Bonferroni).
        better, worse: queries whose average precision is higher, or lower, than the base's.
        queries: that count.
        people: that are sought.
    """

    base: str
    model: str
    dataset: str
    differences: dict[str, Difference]
    level: float
    better: int
    worse: int
    queries: int
    people: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: fractions."""
        differences = {
            name: {
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "verdict": found.verdict,
            }
            for name, found in self.differences.items()
        }
        return {
            "base": self.base,
            "model": self.model,
            "dataset": self.dataset,
            "level": self.level,
            "differences": differences,
            "better": self.better,
            "worse": self.worse,
            "queries": self.queries,
            "people": self.people,
        }


def compare_reports(
    base: RetrievalReport,
    model: RetrievalReport,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations of the same queries in the same gallery.

    The difference of each query is taken first and people are resampled then, so that what is hard
    for both models alike does not blur the comparison.

    Args:
        base: what is compared with.
        model: what is compared.
        level: share of such intervals that hold the true difference.
        draws: samples of people that are drawn.
        seed: of the draws.

    Raises:
        InputError: other queries or another gallery, or fewer than two people.
    """
    _require_same(base, model)
    mine, theirs = query_figures(model.result), query_figures(base.result)
    person = base.query_labels.person
    paired = {name: mine[name] - theirs[name] for name in mine}
    found = intervals(paired, person, level=level, draws=draws, seed=seed)
    if not found:
        raise InputError(
            f"data set {base.dataset}: the queries that count show fewer than two people; expected "
            "more of them to compare models by"
        )
    differences = {}
    for name, interval in found.items():
        real = interval.low > 0 or interval.high < 0
        differences[name] = Difference(
            value=float(np.nanmean(paired[name])),
            low=interval.low,
            high=interval.high,
            verdict="real" if real else "noise",
        )
    counted = ~np.isnan(paired["mAP"])
    return Comparison(
        base=base.name,
        model=model.name,
        dataset=base.dataset,
        differences=differences,
        level=level,
        better=int(np.count_nonzero(paired["mAP"][counted] > 0)),
        worse=int(np.count_nonzero(paired["mAP"][counted] < 0)),
        queries=int(np.count_nonzero(counted)),
        people=len(np.unique(person[counted])),
    )


def compare_with_first(
    reports: Sequence[RetrievalReport], *, level: float = LEVEL, seed: int = 0
) -> list[Comparison]:
    """Every evaluation against the first one of its data set.

    Args:
        reports: of any models and data sets.
        level: that all comparisons with one base hold together.
        seed: of the draws.

    Raises:
        InputError: as :func:`compare_reports`.
    """
    by_dataset: dict[str, list[RetrievalReport]] = {}
    for report in reports:
        by_dataset.setdefault(report.dataset, []).append(report)
    return [
        compare_reports(first, other, level=1 - (1 - level) / len(others), seed=seed)
        for first, *others in by_dataset.values()
        for other in others
    ]


def _require_same(base: RetrievalReport, model: RetrievalReport) -> None:
    for side in ("query_labels", "gallery_labels"):
        one, other = getattr(base, side), getattr(model, side)
        if not (
            np.array_equal(one.person, other.person) and np.array_equal(one.camera, other.camera)
        ):
            raise InputError(
                f"{base.name} was evaluated on {base.dataset} ({len(base.query_labels)} queries), "
                f"{model.name} on {model.dataset} ({len(model.query_labels)}): expected the same "
                "queries and gallery; evaluate both on one data set"
            )
