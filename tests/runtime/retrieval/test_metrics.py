from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from sa_runtime.errors import InputError
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import (
    CONVENTIONS,
    RetrievalResult,
    evaluate_distances,
    evaluate_vectors,
)


class Matrix:
    """Distances written down in a test."""

    def __init__(self, values: Any, dtype: type = np.float32) -> None:
        self._values: NDArray[Any] = np.array(values, dtype)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._values.shape
        return rows, columns

    def rows(self, memory_bytes: int = 0) -> Iterator[NDArray[Any]]:
        return iter(self._values.copy())

    def row(self, index: int) -> NDArray[Any]:
        return np.array(self._values[index])


def labels(person: Any, camera: Any) -> Labels:
    return Labels(person=np.array(person, np.int64), camera=np.array(camera, np.int64))


def assert_same(one: RetrievalResult, other: RetrievalResult) -> None:
    assert (one.mAP, one.mINP) == (other.mAP, other.mINP)
    assert (one.queries_counted, one.queries_skipped) == (
        other.queries_counted,
        other.queries_skipped,
    )
    for name, curve in one.cmc.items():
        assert curve.tolist() == other.cmc[name].tolist()


def test_one_query_by_hand() -> None:
    # By distance: removed (same person, same camera), wrong, match, distractor, match.
    result = evaluate_distances(
        Matrix([[0.1, 0.2, 0.3, 0.4, 0.5]]),
        labels([1], [0]),
        labels([1, 2, 1, 0, 1], [0, 1, 1, 2, 2]),
        conventions=CONVENTIONS,
        max_rank=5,
    )
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.mINP == pytest.approx(2 / 4)
    assert result.first_rank.tolist() == [2]
    assert result.cmc["market1501"].tolist() == [0, 1, 1, 1, 1]
    assert result.cmc["allshots"].tolist() == [0, 0.5, 1, 1, 1]
    # Draws hold persons 0, 1 and 2; person 1 is drawn at 0.3 (second) or at 0.5 (third).
    assert result.cmc["cuhk03"][0] == 0
    assert 0 < result.cmc["cuhk03"][1] < 1
    assert result.cmc["cuhk03"][2:].tolist() == pytest.approx([1, 1, 1])
    assert (result.queries_counted, result.queries_skipped, result.gallery_images) == (1, 0, 5)


def test_means_over_queries_by_hand() -> None:
    # Query 0: match first. Query 1: matches second and third. Query 2: nobody, so not counted.
    result = evaluate_distances(
        Matrix([[1, 2, 3, 4], [3, 1, 2, 4], [1, 1, 1, 1]]),
        labels([7, 8, 9], [0, 0, 0]),
        labels([7, 5, 8, 8], [1, 1, 1, 2]),
        max_rank=4,
    )
    ap = [1.0, (1 / 2 + 2 / 4) / 2]
    assert result.average_precision.tolist() == pytest.approx([*ap, np.nan], nan_ok=True)
    assert result.mAP == pytest.approx(sum(ap) / 2)
    assert result.mINP == pytest.approx((1 + 2 / 4) / 2)
    assert result.first_rank.tolist() == [1, 2, 0]
    assert result.cmc["market1501"].tolist() == [0.5, 1, 1, 1]
    assert (result.queries_counted, result.queries_skipped) == (2, 1)
    assert (result.rank(1), result.rank(2, "market1501")) == (0.5, 1.0)


def test_among_equal_distances_the_wrong_images_come_first() -> None:
    result = evaluate_distances(
        Matrix([[2, 2, 2, 1, 2]]),
        labels([1], [0]),
        labels([1, 5, 1, 6, 7], [1, 1, 1, 1, 1]),
        conventions=CONVENTIONS,
        max_rank=5,
    )
    # One wrong image before the group of two matches and two wrong ones.
    assert result.mAP == pytest.approx(2 / 5)
    assert result.mINP == pytest.approx(2 / 5)
    assert result.cmc["market1501"].tolist() == [0, 0, 0, 1, 1]
    assert result.cmc["allshots"].tolist() == [0, 0, 0, 1, 1]
    assert result.cmc["cuhk03"].tolist() == pytest.approx([0, 0, 0, 1, 1])


def test_vectors_that_are_all_equal_score_worst() -> None:
    same = np.ones((30, 4), np.float32)
    gallery = labels(np.arange(30) % 10, np.ones(30))
    result = evaluate_vectors(same[:10], labels(np.arange(10), np.zeros(10)), same, gallery)
    assert result.mAP == pytest.approx(3 / 30)
    assert result.rank(27) == 0
    assert result.rank(28) == 1


def test_distractors_stay_and_junk_goes() -> None:
    query, wanted = labels([3], [0]), np.array([[0.0, 1.0]])
    gallery = np.array([[0.0, 1.0], [0.1, 1.0], [0.5, 1.0]])
    kept = evaluate_vectors(wanted, query, gallery, labels([0, 0, 3], [1, 0, 1]))
    dropped = evaluate_vectors(wanted, query, gallery, labels([-1, 0, 3], [1, 0, 1]))
    assert [kept.mAP, dropped.mAP] == pytest.approx([1 / 3, 1 / 2])
    assert (kept.gallery_images, kept.junk) == (3, 0)
    assert (dropped.gallery_images, dropped.junk) == (2, 1)


def test_a_small_gallery_repeats_its_last_value() -> None:
    result = evaluate_distances(
        Matrix([[1.0, 2.0], [2.0, 1.0]]),
        labels([1, 1], [0, 0]),
        labels([1, 2], [1, 1]),
        conventions=CONVENTIONS,
        max_rank=100,
    )
    for name in CONVENTIONS:
        assert result.cmc[name].shape == (100,)
        assert result.cmc[name][0] == pytest.approx(0.5)
        np.testing.assert_allclose(result.cmc[name][1:], 1)


def test_a_curve_may_be_shorter_than_the_gallery() -> None:
    result = evaluate_distances(
        Matrix([[1.0, 2.0, 3.0, 4.0]]),
        labels([1], [0]),
        labels([2, 3, 4, 1], [1, 1, 1, 1]),
        conventions=CONVENTIONS,
        max_rank=2,
    )
    assert [result.cmc[name].tolist() for name in CONVENTIONS] == [[0, 0]] * 3
    with pytest.raises(InputError, match="rank 3: expected 1 to 2; raise `max_rank`"):
        result.rank(3)


def slow_evaluation(
    distance: NDArray[Any], query: Labels, gallery: Labels, max_rank: int
) -> dict[str, Any]:
    """The authors' loops, image by image; among equals the wrong ones first."""
    market, allshots = np.zeros(max_rank), np.zeros(max_rank)
    precisions, inverse = [], []
    for i, row in enumerate(distance):
        keep = [
            j
            for j in range(len(row))
            if not (gallery.person[j] == query.person[i] and gallery.camera[j] == query.camera[i])
        ]
        right = [bool(gallery.person[j] == query.person[i]) for j in keep]
        if not any(right):
            continue
        precisions.append(average_precision_score(right, -row[keep]))
        ranked = [hit for _, hit in sorted(zip(row[keep].tolist(), right, strict=True))]
        positions = [k for k, hit in enumerate(ranked) if hit]
        inverse.append(len(positions) / (positions[-1] + 1))
        if positions[0] < max_rank:
            market[positions[0]] += 1
        for j, k in enumerate(positions):
            if k - j < max_rank:
                allshots[k - j] += 1 / len(positions)
    count = len(precisions)
    return {
        "count": count,
        "mAP": np.mean(precisions) if count else None,
        "mINP": np.mean(inverse) if count else None,
        "market1501": market.cumsum() / max(count, 1),
        "allshots": allshots.cumsum() / max(count, 1),
    }


def problems() -> st.SearchStrategy[tuple[NDArray[Any], Labels, Labels]]:
    """Distances with many ties, few persons and cameras, distractors among them."""

    def build(size: tuple[int, int]) -> st.SearchStrategy[tuple[NDArray[Any], Labels, Labels]]:
        def side(count: int, lowest: int) -> st.SearchStrategy[Labels]:
            return st.builds(
                labels,
                arrays(np.int64, count, elements=st.integers(lowest, 3)),
                arrays(np.int64, count, elements=st.integers(0, 2)),
            )

        values = arrays(np.float32, size, elements=st.integers(0, 6).map(float))
        return st.tuples(values, side(size[0], 1), side(size[1], 0))

    return st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(build)


@settings(max_examples=150)
@given(problem=problems(), max_rank=st.integers(1, 15))
def test_figures_agree_with_scikit_learn_and_the_authors_loops(
    problem: tuple[NDArray[Any], Labels, Labels], max_rank: int
) -> None:
    distance, query, gallery = problem
    expected = slow_evaluation(distance, query, gallery, max_rank)
    assume(expected["count"])
    result = evaluate_distances(
        Matrix(distance), query, gallery, conventions=CONVENTIONS, max_rank=max_rank
    )
    assert result.queries_counted == expected["count"]
    assert result.mAP == pytest.approx(expected["mAP"], abs=1e-12)
    assert result.mINP == pytest.approx(expected["mINP"], abs=1e-12)
    np.testing.assert_allclose(result.cmc["market1501"], expected["market1501"], atol=1e-12)
    np.testing.assert_allclose(result.cmc["allshots"], expected["allshots"], atol=1e-12)
    for curve in result.cmc.values():
        assert np.all(np.diff(curve) >= -1e-12)
        assert -1e-12 <= curve.min() <= curve.max() <= 1 + 1e-12


def every_draw(distance: NDArray[Any], person: NDArray[Any], wanted: int) -> list[int]:
    """Positions of the wanted person in all draws of one image for each person."""
    images = defaultdict(list)
    for value, owner in zip(distance.tolist(), person.tolist(), strict=True):
        images[owner].append(value)
    others = [values for owner, values in images.items() if owner != wanted]
    return [
        sum(value <= mine for value in drawn)
        for mine in images[wanted]
        for drawn in itertools.product(*others)
    ]


def test_single_shot_draws_have_the_odds_of_all_draws() -> None:
    rng = np.random.default_rng(5)
    distance = rng.integers(0, 9, 14).astype(np.float32)
    person = np.array([1, 1, 1, 2, 2, 2, 3, 3, 4, 0, 0, 4, 1, 9])
    camera = np.array([1, 2, 1, 1, 1, 2, 1, 1, 2, 1, 2, 1, 0, 0])  # the last two are left out
    queries = 400
    result = evaluate_distances(
        Matrix(np.tile(distance, (queries, 1))),
        labels([1] * queries, [0] * queries),
        labels(person, camera),
        conventions=["cuhk03"],
        max_rank=8,
    )
    seen = camera != 0
    positions = np.array(every_draw(distance[seen], person[seen], 1))
    odds = [(positions < rank).mean() for rank in range(1, 9)]
    assert 0.2 < odds[0] < 0.8 or 0.2 < odds[1] < 0.8  # the problem tells draws apart
    # 4,000 draws: four standard deviations are at most 0.032.
    np.testing.assert_allclose(result.cmc["cuhk03"], odds, atol=0.032)


def test_single_shot_draws_follow_the_seed() -> None:
    rng = np.random.default_rng(6)
    query, gallery = labels(rng.integers(1, 9, 20), [0] * 20), labels(np.arange(80) % 9, [1] * 80)
    distance = rng.random((20, 80))

    one, again, other = (
        evaluate_distances(Matrix(distance), query, gallery, conventions=["cuhk03"], seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.cmc["cuhk03"].tolist() == again.cmc["cuhk03"].tolist()
    assert one.cmc["cuhk03"].tolist() != other.cmc["cuhk03"].tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_ids_and_any_finite_distances_give_the_same_figures(dtype: type) -> None:
    rng = np.random.default_rng(4)
    distance: NDArray[Any] = rng.integers(0, 40, (12, 90)).astype(dtype)
    small = rng.integers(1, 9, 12), rng.integers(0, 9, 90)
    camera = rng.integers(0, 3, 12), rng.integers(0, 3, 90)
    expected, *others = (
        evaluate_distances(
            Matrix(distance * scale + shift, dtype),
            labels(ids[small[0]], camera[0]),
            labels(ids[small[1]], camera[1]),
            conventions=CONVENTIONS,
        )
        for ids, scale, shift in (
            (np.arange(9), 1, 0),
            # As they come in names: beyond 32 bits, equal modulo 2 ** 32, and the largest of all.
            (20240101123456000 + np.arange(9), 1, 0),
            (np.arange(9) << 32, 1, 0),
            (2**63 - 9 + np.arange(9), 1, 0),
            (np.arange(9), 2, -50),
        )
    )
    for found in others:
        assert_same(expected, found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("conventions", [["market1501"], CONVENTIONS])
def test_distances_that_are_not_finite_are_refused(
    bad: float, dtype: type, conventions: Any
) -> None:
    for place in range(4):
        distance = np.arange(8.0).reshape(2, 4)
        distance[1, place] = bad
        with pytest.raises(
            InputError, match="distances of query 1 hold a value that is not finite: expected fin"
        ):
            evaluate_distances(
                Matrix(distance, dtype),
                labels([1, 1], [0, 0]),
                labels([1, 2, 1, 2], [1, 0, 1, 0]),
                conventions=conventions,
            )


# Whole numbers: distances are exact, so that equal ones are equal whatever the order of the sums.


def test_messages_say_what_came_and_what_to_do() -> None:
    one, two = np.ones((1, 2)), np.ones((2, 2))
    with pytest.raises(InputError, match="2 gallery vectors but 1 labels: expected one for each"):
        evaluate_vectors(one, labels([1], [0]), two, labels([1], [0]))
    with pytest.raises(
        InputError,
        match=r"no query has a match: 1 queries, 2 gallery images, 1 persons in both, none of them "
        r"under another camera.*`sa-deploy data check`",
    ):
        evaluate_vectors(one, labels([1], [0]), two, labels([1, 2], [0, 1]))
    with pytest.raises(InputError, match=r"labels.person of shape \(2,\) float64: expected"):
        Labels(person=np.ones(2), camera=np.ones(2, np.int64))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels of 1 persons and 2 cameras"):
        labels([1], [0, 1])
    with pytest.raises(InputError, match=r"labels\.person holds -2: expected -1 \(junk\), 0 or"):
        labels([-2], [0])
    with pytest.raises(InputError, match="CMC convention 'msmt': unknown; choose from market1501"):
        evaluate_vectors(
            one,
            labels([1], [0]),
            two,
            labels([1, 1], [1, 1]),
            conventions=["msmt"],  # type: ignore[list-item]
        )
    matrix, gallery = Matrix([[1.0, 2.0]]), labels([1, 1], [1, 1])
    with pytest.raises(InputError, match="no CMC convention given"):
        evaluate_distances(matrix, labels([1], [0]), gallery, conventions=[])
    with pytest.raises(InputError, match="max_rank=0: expected at least 1"):
        evaluate_distances(matrix, labels([1], [0]), gallery, max_rank=0)
    with pytest.raises(InputError, match=r"gallery labels hold junk \(person -1\)"):
        evaluate_distances(matrix, labels([1], [0]), labels([1, -1], [1, 1]))
    with pytest.raises(InputError, match=r"distances of shape \(1, 2\) but labels of 1 queries"):
        evaluate_distances(matrix, labels([1], [0]), labels([1], [1]))
    result = evaluate_distances(matrix, labels([1], [0]), gallery)
    with pytest.raises(InputError, match="CMC convention 'allshots': evaluated were market1501"):
        result.rank(1, "allshots")
