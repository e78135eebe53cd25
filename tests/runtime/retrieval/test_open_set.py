from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from sa_runtime.errors import InputError
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.open_set import (
    OpenSetResult,
    evaluate_open_set,
    open_set_of_distances,
)


class Matrix:
    """Distances written down in a test."""

    def __init__(self, values: Any) -> None:
        self.values: NDArray[Any] = np.array(values, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    def rows(self, memory_bytes: int = 0) -> Iterator[NDArray[Any]]:
        return iter(self.values.copy())

    def row(self, index: int) -> NDArray[Any]:
        return np.array(self.values[index])


def labels(person: Any, camera: Any) -> Labels:
    return Labels(person=np.array(person, np.int64), camera=np.array(camera, np.int64))


def test_rates_by_hand() -> None:
    # Genuine: 0.1, 0.4 and 0.2; impostors of query 0: 0.3 and 0.6, of query 1: 0.25, 0.5 and 0.7.
    result = open_set_of_distances(
        Matrix([[0.1, 0.4, 0.3, 0.6], [0.5, 0.7, 0.2, 0.25]]),
        labels([1, 2], [0, 0]),
        labels([1, 1, 2, 0], [1, 2, 1, 1]),
        rates=(0.2, 0.5, 1.0, 0.1),
    )
    assert (len(result.genuine), result.impostor_pairs, result.searches) == (3, 5, 2)
    # One false positive of five is allowed: below 0.3 lie 0.25, and the genuine 0.1 and 0.2.
    assert result.threshold[:3] == pytest.approx([0.3, 0.5, np.inf])
    assert result.tpr[:3] == pytest.approx([2 / 3, 1, 1])
    assert np.isnan(result.tpr[3])  # a tenth of five pairs is none
    # Searches without the person: 0.3 and 0.25; at one half, the one below 0.3 is accepted.
    assert result.dir_threshold[1] == pytest.approx(0.3)
    assert result.dir[1:3].tolist() == [1.0, 1.0]
    assert np.isnan(result.dir[0])


def test_the_same_person_under_the_same_camera_counts_nowhere_and_a_tie_is_wrong() -> None:
    result = open_set_of_distances(
        Matrix([[0.0, 0.3, 0.3, 0.9]]),
        labels([1], [0]),
        labels([1, 1, 2, 2], [0, 1, 1, 0]),
        rates=(0.5, 1.0),
    )
    assert result.genuine.tolist() == pytest.approx([0.3])
    assert result.impostor_pairs == 2
    # 0.3 is accepted together with the impostor at 0.3, or not at all.
    assert result.threshold[0] == pytest.approx(0.9)
    assert result.tpr.tolist() == [1.0, 1.0]
    assert result.dir[1] == 0.0


def brute(distance: NDArray[Any], query: Labels, gallery: Labels, rate: float) -> list[float]:
    """TPR and DIR by trying every threshold."""
    same = (query.person[:, None] == gallery.person) & (query.person[:, None] != 0)
    genuine = distance[same & (query.camera[:, None] != gallery.camera)]
    impostor = distance[~same]
    tries = [*np.unique(distance), np.inf]
    allowed = [t for t in tries if (impostor < t).mean() <= rate]
    tpr = max((genuine < t).mean() for t in allowed)
    near = np.where(same & (query.camera[:, None] != gallery.camera), distance, np.inf).min(axis=1)
    far = np.where(~same, distance, np.inf).min(axis=1)[np.isfinite(near)]
    near = near[np.isfinite(near)]
    allowed = [t for t in tries if (far < t).mean() <= rate]
    return [tpr, max(((near < t) & (near < far)).mean() for t in allowed)]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.25, 0.5, 0.9]), st.booleans())
def test_agrees_with_every_threshold_tried(seed: int, rate: float, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.random((6, 12)).astype(np.float32)
    if coarse:
        distance = np.round(distance, 1)
    query = labels(rng.integers(1, 4, 6), rng.integers(0, 2, 6))
    gallery = labels(rng.integers(0, 4, 12), rng.integers(0, 2, 12))
    try:
        result = open_set_of_distances(Matrix(distance), query, gallery, rates=(rate,))
    except InputError:
        assume(False)
    expected = brute(distance, query, gallery, rate)
    found = [result.tpr[0], result.dir[0]]
    for mine, theirs, count in zip(
        found, expected, (result.impostor_pairs, result.searches), strict=True
    ):
        if rate * count >= 1:
            assert mine == pytest.approx(theirs)
        else:
            assert np.isnan(mine)


def of_vectors(seed: int = 0, **options: Any) -> tuple[OpenSetResult, NDArray[Any], NDArray[Any]]:
    """A result, and the flat distances with what is genuine."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((60, 16))
    person = rng.integers(0, 60, 700)
    vectors = centre[person] + rng.standard_normal((700, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    one, two = labels(person[:200] + 1, [0] * 200), labels(person[200:] + 1, [1] * 500)
    result = evaluate_open_set(vectors[:200], one, vectors[200:], two, **options)
    difference = vectors[:200, None].astype(np.float64) - vectors[None, 200:]
    distance = (difference**2).sum(axis=2).ravel()
    return result, distance, (one.person[:, None] == two.person).ravel()


def test_the_curve_is_that_of_scikit_learn() -> None:
    result, distance, same = of_vectors(rates=(1e-2, 1e-3))
    fpr, tpr, _ = roc_curve(same, -distance, drop_intermediate=False)
    expected = [tpr[fpr <= rate].max() for rate in result.rates]
    assert result.tpr == pytest.approx(expected, abs=1e-9)
    on_curve = np.array([tpr[fpr <= rate + 1e-12].max() for rate in result.roc.fpr])
    exact = result.roc.fpr <= 1e-2
    assert result.roc.tpr[exact] == pytest.approx(on_curve[exact], abs=1e-9)
    assert result.roc.tpr == pytest.approx(on_curve, abs=2e-3)
    assert (result.roc.fpr[-1], result.roc.tpr[-1]) == (1, 1)


def test_the_histogram_counts_every_impostor() -> None:
    result, distance, same = of_vectors()
    edges = np.linspace(0, 5, 21)
    expected, _ = np.histogram(distance[~same], edges)
    assert result.impostor_histogram(edges).sum() == result.impostor_pairs
    assert result.impostor_histogram(edges) == pytest.approx(expected, rel=0.02, abs=20)


def test_memory_and_order_change_nothing() -> None:
    small, _, _ = of_vectors(memory_bytes=2**16)
    large, _, _ = of_vectors()
    assert small.tpr.tolist() == large.tpr.tolist()
    assert small.roc.tpr.tolist() == large.roc.tpr.tolist()


def test_negative_distances_order_as_they_should() -> None:
    values = np.array([[-3.0, -1.0, -2.0, 5.0]])
    result = open_set_of_distances(
        Matrix(values), labels([1], [0]), labels([1, 2, 2, 2], [1, 1, 1, 1]), rates=(1.0,)
    )
    assert result.impostor_histogram(np.array([-10.0, -1.5, 0.0, 10.0])).tolist() == [1, 1, 1]


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"rates=.*above 0 and at most 1"):
        of_vectors(rates=(rate,))


def test_what_cannot_be_evaluated_says_why() -> None:
    one = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match=r"no genuine pair.*another camera"):
        evaluate_open_set(one, labels([1, 2], [0, 0]), one, labels([1, 2], [0, 0]))
    with pytest.raises(InputError, match=r"no impostor pair.*other persons"):
        evaluate_open_set(one, labels([1, 1], [0, 0]), one, labels([1, 1], [1, 1]))
    with pytest.raises(InputError, match="2 query vectors but 1 labels"):
        evaluate_open_set(one, labels([1], [0]), one, labels([1, 2], [0, 0]))
