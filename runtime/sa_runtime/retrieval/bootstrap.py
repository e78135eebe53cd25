"""How sure a figure is: intervals of retrieval figures by resampling people.

People are drawn with replacement, each with all of its queries. Queries of one person resemble one
another, so that drawing single queries would promise more than the data holds. The gallery stays as
it is: an interval says what other people, sought in this gallery, would have given.

Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), the percentile interval, widened
by ``sqrt(P / (P - 1))``, since a draw of P people varies by that much too little.

Shape suffixes: Q queries, P people, F figures, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import bad_value
from sa_runtime.retrieval.metrics import RetrievalResult
from sa_runtime.retrieval.vectors import Ints

LEVEL = 0.95
DRAWS = 2000
RANKS = (1, 5, 10)
"""Ranks that are reported."""
_DRAWN_NUMBERS = 2**20


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a figure lies.

    Attributes:
        low: lower end, a fraction.
        high: upper end.
        level: share of such intervals that hold the true value.
    """

    low: float
    high: float
    level: float = LEVEL

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return (self.high - self.low) / 2


def query_figures(result: RetrievalResult) -> dict[str, NDArray[np.float64]]:
    """The figures of every query whose means are those of the data set.

    Returns:
        (Q,) float64 for each of ``mAP``, ``rank1``, ``rank5``, ``rank10`` (by the convention
        ``market1501``) and ``mINP``; NaN where a query does not count.
    """
    counted = result.first_rank > 0
    ranks = {
        f"rank{k}": np.where(counted, (result.first_rank <= k).astype(np.float64), np.nan)
        for k in RANKS
    }
    return {"mAP": result.average_precision, **ranks, "mINP": result.inverse_penalty}


def intervals(
    figures: Mapping[str, NDArray[np.float64]],
    person: Ints,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of the means of some figures.

    Args:
        figures: (Q,) float64 of each query, or differences of two models; all NaN at the same
            queries, which do not count.
        person: (Q,) who each query shows.
        level: share of such intervals that hold the true value.
        draws: samples that are drawn.
        seed: of the draws.

    Returns:
        An interval for each figure; none where fewer than two people count.

    Raises:
        InputError: a level outside (0, 1), or no draws.

    >>> ap = np.array([0.9, 0.8, 0.2, 0.3])
    >>> found = intervals({"mAP": ap}, np.array([1, 1, 2, 2]))["mAP"]
    >>> bool(found.low < ap.mean() < found.high)
    True
    """
    if not 0 < level < 1:
        raise bad_value("level", level, "expected a share between 0 and 1, such as 0.95")
    if draws < 1:
        raise bad_value("draws", draws, "expected at least 1")
    values_QF = np.stack([np.asarray(value, np.float64) for value in figures.values()], axis=1)
    counted = ~np.isnan(values_QF).any(axis=1)
    people, index_Q = np.unique(person[counted], return_inverse=True)
    total = len(people)
    if total < 2:
        return {}
    sums_PF = np.zeros((total, values_QF.shape[1]))
    np.add.at(sums_PF, index_Q, values_QF[counted])
    queries_P = np.bincount(index_Q, minlength=total).astype(np.float64)
    mean_F = sums_PF.sum(axis=0) / queries_P.sum()
    means_BF = np.concatenate(
        [
            (drawn_BP @ sums_PF) / (drawn_BP @ queries_P)[:, None]
            for drawn_BP in _draws(total, draws, seed)
        ]
    )
    means_BF = mean_F + (means_BF - mean_F) * math.sqrt(total / (total - 1))
    low_F, high_F = np.quantile(means_BF, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: Interval(low=float(low_F[index]), high=float(high_F[index]), level=level)
        for index, name in enumerate(figures)
    }


def _draws(total: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(B, P) how often each person was drawn, in parts of bounded size."""
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWN_NUMBERS // total)
    for start in range(0, draws, step):
        picked = rng.integers(0, total, (min(step, draws - start), total))
        picked += np.arange(len(picked))[:, None] * total
        counts = np.bincount(picked.ravel(), minlength=picked.size)
        yield counts.reshape(picked.shape).astype(np.float64)
