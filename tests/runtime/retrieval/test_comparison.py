from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.errors import InputError
from sa_runtime.retrieval.comparison import compare_reports, compare_with_first
from sa_runtime.retrieval.evaluation import Embed, RetrievalReport, evaluate_embedder

PEOPLE, CAMERAS, DIM = 40, 3, 16


def dataset(shift: int = 0) -> ReidDataset:
    samples = [
        Sample(Path(f"{person}_{camera}.png"), person + shift, camera)
        for person in range(1, PEOPLE + 1)
        for camera in range(CAMERAS)
    ]
    return ReidDataset(
        name="drawn", root=Path("/drawn"), train=(), query=tuple(samples), gallery=tuple(samples)
    )


def embedder(noise: float, seed: int) -> Embed:
    """People as fixed directions, each image with noise of its own."""

    def embed(paths: object) -> NDArray[np.float64]:
        centres = np.random.default_rng(0).normal(size=(PEOPLE + 1, DIM))
        own = np.random.default_rng(seed).normal(size=(PEOPLE * CAMERAS, DIM))
        who = np.repeat(np.arange(1, PEOPLE + 1), CAMERAS)
        vectors = centres[who] + noise * own
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    return embed


def report(noise: float, seed: int, name: str) -> RetrievalReport:
    return replace(evaluate_embedder(embedder(noise, seed), dataset()), model=name)


def test_a_model_against_itself_is_noise() -> None:
    one = report(1.0, 1, "a")
    found = compare_reports(one, one)
    assert {difference.verdict for difference in found.differences.values()} == {"noise"}
    assert (found.better, found.worse, found.differences["mAP"].value) == (0, 0, 0.0)
    assert (found.queries, found.people) == (PEOPLE * CAMERAS, PEOPLE)


def test_a_much_better_model_is_real() -> None:
    found = compare_reports(report(1.2, 1, "worse"), report(0.6, 2, "better"))
    difference = found.differences["mAP"]
    assert difference.verdict == "real"
    assert 0 < difference.low < difference.value < difference.high
    assert found.better > 4 * found.worse
    back = compare_reports(report(0.6, 2, "better"), report(1.2, 1, "worse"))
    assert back.differences["mAP"].verdict == "real"
    assert back.differences["mAP"].value == pytest.approx(-difference.value)


def test_equally_good_models_are_seldom_called_different() -> None:
    """At 95 % about one comparison in twenty errs."""
    reports = [report(1.2, seed, str(seed)) for seed in range(100, 140)]
    verdicts = [
        compare_reports(one, other, draws=400).differences["mAP"].verdict
        for one, other in zip(reports[::2], reports[1::2], strict=True)
    ]
    assert verdicts.count("real") <= 4


def test_pairs_tell_more_than_two_intervals_do() -> None:
    """Vectors with a little more noise: every query is a little harder, people differ widely."""
    base = report(1.2, 1, "a")
    query = np.asarray(base.query)
    moved = query + 0.05 * np.random.default_rng(9).normal(size=query.shape)
    other = evaluate_embedder(lambda paths: moved, dataset())
    paired = compare_reports(base, other).differences["mAP"]
    assert (paired.high - paired.low) / 2 < 0.5 * base.intervals()["mAP"].half_width


def test_several_models_share_the_level() -> None:
    reports = [report(1.0, seed, str(seed)) for seed in range(3)]
    found = compare_with_first(reports)
    assert [(one.base, one.model) for one in found] == [("0", "1"), ("0", "2")]
    assert {one.level for one in found} == {0.975}
    alone = compare_reports(reports[0], reports[1])
    difference = found[0].differences["mAP"]
    assert difference.high - difference.low > alone.differences["mAP"].high - (
        alone.differences["mAP"].low
    )


def test_other_queries_are_refused() -> None:
    other = evaluate_embedder(embedder(1.0, 1), dataset(shift=5))
    with pytest.raises(InputError, match="expected the same queries and gallery"):
        compare_reports(report(1.0, 1, "a"), other)


def test_one_person_cannot_be_resampled() -> None:
    one = [Sample(Path(f"1_{camera}.png"), 1, camera) for camera in range(2)]
    few = ReidDataset(name="few", root=Path("/few"), train=(), query=tuple(one), gallery=tuple(one))
    lonely = evaluate_embedder(lambda paths: np.eye(2), few)
    assert lonely.intervals() == {}
    with pytest.raises(InputError, match="data set few: the queries that count show fewer than"):
        compare_reports(lonely, lonely)
