from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.retrieval.distance import Metric, VectorDistances
from sa_runtime.retrieval.search import top_k
from sa_runtime.retrieval.vectors import VectorRows

# Small whole numbers: float32 products and sums of them are exact, so that ties are real.
whole = st.integers(-4, 4).map(float)


def matrices(rows: st.SearchStrategy[int], dim: int = 3) -> st.SearchStrategy[NDArray[np.float32]]:
    return rows.flatmap(lambda n: arrays(np.float32, (n, dim), elements=whole))


def rows_of(vectors: NDArray[Any], name: str = "query") -> VectorRows:
    return VectorRows(vectors, name=name)


def matrix(query: NDArray[Any], gallery: NDArray[Any], metric: Metric, memory_bytes: int) -> Any:
    source = VectorDistances(rows_of(query), rows_of(gallery), metric)
    return np.array([row.copy() for row in source.rows(memory_bytes)])


def by_definition(query: NDArray[Any], gallery: NDArray[Any], metric: Metric) -> Any:
    out = np.zeros((len(query), len(gallery)))
    for i, x in enumerate(query.astype(float)):
        for j, y in enumerate(gallery.astype(float)):
            if metric == "euclidean":
                out[i, j] = sum((x - y) ** 2)
            else:
                lengths = np.sqrt(sum(x * x)) * np.sqrt(sum(y * y))
                out[i, j] = 1 - (sum(x * y) / lengths if lengths else 0)
    return out


@given(
    query=matrices(st.integers(1, 6)),
    gallery=matrices(st.integers(1, 9)),
    memory_bytes=st.sampled_from([1, 100, 300, 10**6]),
    metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_distances_are_those_of_the_definition_in_any_memory(
    query: NDArray[Any], gallery: NDArray[Any], memory_bytes: int, metric: Metric
) -> None:
    found = matrix(query, gallery, metric, memory_bytes)
    expected = by_definition(query, gallery, metric)
    np.testing.assert_allclose(found, expected, atol=0 if metric == "euclidean" else 1e-6)
    single = VectorDistances(rows_of(query), rows_of(gallery), metric).row(len(query) - 1)
    np.testing.assert_allclose(single, expected[-1], atol=0 if metric == "euclidean" else 1e-6)


def test_distances_are_never_negative() -> None:
    unit = np.random.default_rng(0).normal(size=(40, 512)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for metric in ("euclidean", "cosine"):
        found = matrix(unit, unit, metric, 10**6)
        assert found.min() >= 0
        assert np.diagonal(found).max() < 1e-5


@given(
    query=matrices(st.integers(1, 5)),
    gallery=matrices(st.integers(1, 30)),
    k=st.integers(1, 35),
    memory_bytes=st.sampled_from([1, 200, 600, 10**6]),
)
def test_top_k_sorts_by_distance_then_row_in_any_memory(
    query: NDArray[Any], gallery: NDArray[Any], k: int, memory_bytes: int
) -> None:
    found = top_k(query, gallery, k, memory_bytes=memory_bytes)
    everything = by_definition(query, gallery, "euclidean")
    for row, distance in enumerate(everything):
        order = sorted(range(len(gallery)), key=lambda j: (distance[j], j))[:k]
        assert found.index[row].tolist() == order
        assert found.distance[row].tolist() == distance[order].tolist()
        assert found.furthest[row] == distance.max()


def test_top_k_by_cosine_ignores_length() -> None:
    gallery = np.array([[0, 3], [9, 1], [0.1, 0]], np.float32)
    assert top_k(np.array([[2.0, 0.0]]), gallery, 3, metric="cosine").index.tolist() == [[2, 1, 0]]


def test_a_gallery_on_disk_is_searched_in_bounded_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    gallery = np.memmap(tmp_path / "gallery", np.float16, "w+", shape=(20_000, 128))
    gallery[:] = rng.normal(size=gallery.shape)
    query = np.array(gallery[::40])
    top_k(query[:2], gallery, 3)
    tracemalloc.start()
    found = top_k(query, gallery, 10, memory_bytes=2 * 2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.index[:, 0].tolist() == list(range(0, 20_000, 40))
    result_bytes = found.index.nbytes + found.distance.nbytes
    assert peak < 2 * 2**20 + 2 * result_bytes + 20_000 * 4 + 2**20
    assert (
        peak < gallery.size * 4 / 2
    )  # half of the gallery as float32; the matrix is four times it


def test_stacked_rows_read_like_one_array() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)).astype(np.float16)
    keep = np.array([3, 0])
    both = VectorRows.stacked(VectorRows(first, name="a", keep=keep), rows_of(second))
    whole = np.concatenate([first[keep], second]).astype(np.float32)
    assert both.shape == (6, 3)
    np.testing.assert_array_equal(both.read(1, 4), whole[1:4])
    np.testing.assert_array_equal(both.take(np.array([5, 0, 2])), whole[[5, 0, 2]])
    assert both.read(6, 6).shape == (0, 3)
    np.testing.assert_allclose(both.norms, (whole**2).sum(axis=1), rtol=1e-6)


def test_float32_rows_are_not_copied() -> None:
    vectors = np.ones((4, 2), np.float32)
    assert np.shares_memory(rows_of(vectors).read(1, 3), vectors)


def test_messages_name_what_came() -> None:
    one, other = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    with pytest.raises(InputError, match=r"query vectors have 3 dimensions, gallery vectors 4"):
        top_k(one, other, 1)
    with pytest.raises(InputError, match=r"query vectors of shape \(2, 3\) int64: expected"):
        top_k(np.ones((2, 3), np.int64), one, 1)
    with pytest.raises(InputError, match=r"gallery vectors of shape \(3,\)"):
        top_k(one, one[0], 1)
    with pytest.raises(InputError, match="k=0: expected at least 1"):
        top_k(one, one, 0)
    with pytest.raises(InputError, match="metric='l1': expected one of euclidean, cosine"):
        top_k(one, one, 1, metric="l1")  # type: ignore[arg-type]
    broken = one.copy()
    broken[1, 2] = np.nan
    with pytest.raises(InputError, match="gallery vectors: row 1 holds a value that is not finite"):
        top_k(one, broken, 1)
