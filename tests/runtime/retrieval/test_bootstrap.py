from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.retrieval.bootstrap import intervals, query_figures
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_vectors


def people(
    rng: np.random.Generator, count: int, queries: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Figures of queries that resemble one another where they show one person; mean 0.5."""
    easy = rng.beta(2, 2, count)
    person = np.repeat(np.arange(count), queries)
    return np.clip(easy[person] + rng.normal(0, 0.05, len(person)), 0, 1), person


def test_as_many_intervals_hold_the_truth_as_are_promised() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        values, person = people(rng, 40, 4)
        found = intervals({"mAP": values}, person, draws=400, seed=trial)["mAP"]
        held += found.low <= 0.5 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_queries_of_one_person_count_as_one() -> None:
    values, person = people(np.random.default_rng(1), 60, 8)
    by_person = intervals({"mAP": values}, person)["mAP"]
    by_query = intervals({"mAP": values}, np.arange(len(values)))["mAP"]
    assert by_person.half_width > 2 * by_query.half_width


def test_an_interval_is_that_of_a_loop_that_draws_people() -> None:
    values, person = people(np.random.default_rng(2), 12, 3)
    rng = np.random.default_rng(3)
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 12, 12)
        means.append(np.concatenate([values[person == who] for who in drawn]).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    middle, wider = values.mean(), np.sqrt(12 / 11)
    found = intervals({"mAP": values}, person, draws=4000)["mAP"]
    assert found.low == pytest.approx(middle + wider * (low - middle), abs=0.01)
    assert found.high == pytest.approx(middle + wider * (high - middle), abs=0.01)


def test_queries_that_do_not_count_change_nothing() -> None:
    values, person = people(np.random.default_rng(4), 10, 2)
    more = np.append(values, [np.nan, np.nan])
    assert intervals({"x": more}, np.append(person, [3, 99])) == intervals({"x": values}, person)


def test_the_figures_of_queries_average_to_those_of_the_result() -> None:
    rng = np.random.default_rng(5)
    sides = [
        (
            rng.normal(size=(n, 4)),
            Labels(person=rng.integers(0, 6, n), camera=rng.integers(0, 3, n)),
        )
        for n in (30, 80)
    ]
    result = evaluate_vectors(*sides[0], *sides[1])
    figures = {name: np.nanmean(value) for name, value in query_figures(result).items()}
    assert figures["mAP"] == pytest.approx(result.mAP)
    assert figures["mINP"] == pytest.approx(result.mINP)
    for k in (1, 5, 10):
        assert figures[f"rank{k}"] == pytest.approx(result.rank(k))


def test_what_cannot_be_resampled() -> None:
    assert intervals({"mAP": np.array([0.5, 0.7])}, np.array([3, 3])) == {}
    assert intervals({"mAP": np.array([np.nan])}, np.array([3])) == {}
    values, person = np.array([0.5, 0.7]), np.array([1, 2])
    with pytest.raises(InputError, match=r"level=95: expected a share between 0 and 1"):
        intervals({"mAP": values}, person, level=95)
    with pytest.raises(InputError, match=r"draws=0: expected at least 1"):
        intervals({"mAP": values}, person, draws=0)
