from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.retrieval.rerank import RerankedDistances, Reranking
from sa_runtime.retrieval.vectors import VectorRows


def reranked(
    query: NDArray[Any], gallery: NDArray[Any], settings: Reranking, memory_bytes: int = 10**7
) -> NDArray[np.float32]:
    rows = VectorRows(query, name="query"), VectorRows(gallery, name="gallery")
    source = RerankedDistances(*rows, settings, memory_bytes=memory_bytes)
    assert source.shape == (len(query), len(gallery))
    return np.array([row.copy() for row in source.rows(memory_bytes)])


def dense(query: NDArray[Any], gallery: NDArray[Any], k1: int, k2: int, lam: float) -> Any:
    """The paper's equations 1 to 12 on full float64 matrices and Python sets."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    total = len(x)
    d = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    d /= np.maximum(d.max(axis=1, keepdims=True), 1e-300)
    ranking = [[j for _, j in sorted(zip(row.tolist(), range(total), strict=True))] for row in d]

    def mutual(i: int, k: int) -> set[int]:
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    v = np.zeros((total, total))
    for i in range(total):
        members = set(mutual(i, k1))
        for j in mutual(i, k1):
            half = mutual(j, round(k1 / 2))
            if len(half & mutual(i, k1)) > 2 / 3 * len(half):
                members |= half
        for j in members:
            v[i, j] = np.exp(-d[i, j])
        if members:
            v[i] /= v[i].sum()
    if k2 > 1:
        v = np.array([sum(v[j] for j in ranking[i][:k2]) / k2 for i in range(total)])
    out = np.zeros((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            g = len(query) + j
            low, high = np.minimum(v[i], v[g]).sum(), np.maximum(v[i], v[g]).sum()
            jaccard = 1 - (low / high if high else 0)
            out[i, j] = lam * d[i, g] + (1 - lam) * jaccard
    return out


def unit(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


@pytest.mark.parametrize("k1", [1, 5, 7, 20])
@pytest.mark.parametrize("k2", [1, 2])
def test_unit_vectors_agree_with_the_dense_algorithm(k1: int, k2: int) -> None:
    query, gallery = unit((6, 4), 0), unit((50, 4), 1)
    found = reranked(query, gallery, Reranking(k1=k1, k2=k2))
    np.testing.assert_allclose(found, dense(query, gallery, k1, k2, 0.3), atol=2e-5)


def test_the_papers_values_agree_with_the_dense_algorithm() -> None:
    query, gallery = unit((10, 6), 2), unit((80, 6), 3)
    found = reranked(query, gallery, Reranking())
    np.testing.assert_allclose(found, dense(query, gallery, 20, 6, 0.3), atol=2e-5)


# Whole numbers make distances exact and ties, duplicates and empty reciprocal sets frequent.
grid = st.integers(0, 3).map(float)


@settings(max_examples=60)
@given(
    query=st.integers(1, 5).flatmap(lambda n: arrays(np.float32, (n, 2), elements=grid)),
    gallery=st.integers(1, 14).flatmap(lambda n: arrays(np.float32, (n, 2), elements=grid)),
    k1=st.integers(1, 7),
    k2=st.integers(1, 3),
    lam=st.sampled_from([0.0, 0.3, 1.0]),
    memory_bytes=st.sampled_from([1, 2000, 10**6]),
)
def test_ties_and_duplicates_agree_with_the_dense_algorithm_in_any_memory(
    query: NDArray[Any], gallery: NDArray[Any], k1: int, k2: int, lam: float, memory_bytes: int
) -> None:
    k2 = min(k2, k1 + 1)
    found = reranked(query, gallery, Reranking(k1=k1, k2=k2, original_weight=lam), memory_bytes)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    np.testing.assert_allclose(found, dense(query, gallery, k1, k2, lam), atol=1e-5)


def test_one_row_is_the_same_as_in_the_block() -> None:
    query, gallery = unit((4, 5), 4), unit((30, 5), 5)
    rows = VectorRows(query, name="query"), VectorRows(gallery, name="gallery")
    source = RerankedDistances(*rows, Reranking(k1=6, k2=3))
    np.testing.assert_allclose(
        source.row(2), reranked(query, gallery, Reranking(k1=6, k2=3))[2], atol=1e-6
    )


def test_images_that_are_all_equal_stay_equal() -> None:
    same = np.ones((9, 3), np.float32)
    found = reranked(same[:4], same, Reranking(k1=3, k2=2))
    assert np.isfinite(found).all()
    assert np.ptp(found[0]) <= 1


def test_reciprocal_neighbours_overtake_a_nearer_stranger() -> None:
    # The stranger is nearest to the query, but amid a crowd of its own that does not know the
    # query; the friend and the query name each other.
    query = np.array([[0.0, 0.0]])
    friends = np.array([[0.0, 1.2], [0.0, 1.1]])
    crowd = np.array([[1.0, 0.0], [1.1, 0.0], [1.2, 0.0], [1.1, 0.1]])
    gallery = np.concatenate([friends, crowd])
    assert ((gallery - query) ** 2).sum(axis=1).argmin() == 2
    found = reranked(query, gallery, Reranking(k1=2, k2=1, original_weight=0.3))[0]
    assert found.argmin() in (0, 1)


def test_state_stays_far_below_the_full_matrix() -> None:
    query, gallery = unit((500, 32), 6), unit((3500, 32), 7)
    rows = VectorRows(query, name="query"), VectorRows(gallery, name="gallery")
    memory_bytes = 4 * 2**20
    tracemalloc.start()
    source = RerankedDistances(*rows, Reranking(), memory_bytes=memory_bytes)
    for _ in source.rows(memory_bytes):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * memory_bytes + 4000 * 6000
    assert peak < 4000**2 * 4 / 2  # half of one float32 matrix; the published code keeps several


def test_messages_name_the_field() -> None:
    with pytest.raises(InputError, match=r"reranking\.k1=0: expected at least 1"):
        Reranking(k1=0)
    with pytest.raises(InputError, match=r"reranking\.k2=9: expected 1 to k1 \+ 1 = 6"):
        Reranking(k1=5, k2=9)
    with pytest.raises(InputError, match=r"reranking\.original_weight=1\.5: expected 0 to 1"):
        Reranking(original_weight=1.5)
    with pytest.raises(InputError, match="0 query and 3 gallery vectors: re-ranking expects some"):
        reranked(np.zeros((0, 2)), np.ones((3, 2)), Reranking())
