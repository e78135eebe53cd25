from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.retrieval.search import top_k
from sa_runtime.retrieval.vectors import Floats, Ints, Vectors


def unit(rng: np.random.Generator, rows: int, dim: int, spread: float = 1.0) -> Floats:
    values = spread * rng.standard_normal((rows, dim)) + (spread < 1) * np.ones(dim)
    scaled: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def part(vectors: Vectors, keep: Ints | None = None) -> Part:
    exact = vectors.astype(np.float64)
    norms = (exact**2).sum(axis=1).astype(np.float32)
    return Part(vectors=vectors, norms=norms, total=exact.sum(axis=0), keep=keep)


def oracle(query: Floats, gallery: Vectors, k: int) -> tuple[Ints, NDArray[np.float64]]:
    """One pair after another in float64, sorted by distance, then row."""
    distance = np.array([[((q - g) ** 2).sum() for g in gallery.astype(float)] for q in query])
    index = np.argsort(np.round(distance, 13), axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(distance, index, axis=1)


@settings(max_examples=30)
@given(
    st.integers(0, 9999),
    st.sampled_from([1.0, 0.05, 0.001]),
    st.sampled_from([np.float16, np.float32]),
    st.integers(1, 12),
)
def test_every_pair_compared_gives_the_same(seed: int, spread: float, dtype: type, k: int) -> None:
    rng = np.random.default_rng(seed)
    gallery: Vectors = unit(rng, 150, 24, spread).astype(dtype)
    gallery[rng.integers(0, 150, 30)] = gallery[0]
    query = unit(rng, 9, 24, spread)
    query[0] = gallery[0]
    parts = [part(gallery[:70]), part(gallery[70:70]), part(gallery[70:])]
    index, distance = nearest_rows(query, parts, k, memory_bytes=2**16)
    expected, exact = oracle(query, gallery, k)
    assert index.tolist() == expected.tolist()
    assert distance == pytest.approx(exact, abs=1e-7, rel=1e-6)


def test_agrees_with_top_k_where_it_is_exact() -> None:
    rng = np.random.default_rng(3)
    gallery, query = unit(rng, 3000, 64), unit(rng, 100, 64)
    index, distance = nearest_rows(query, [part(gallery)], 20)
    expected = top_k(query, gallery, 20)
    assert index.tolist() == expected.index.tolist()
    assert distance == pytest.approx(expected.distance, abs=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_no_distance_depends_on_what_stands_beside_it(spread: float) -> None:
    rng = np.random.default_rng(4)
    gallery, query = unit(rng, 20_000, 48, spread), unit(rng, 40, 48, spread)
    one = nearest_rows(query, [part(gallery)], 10)
    for step, memory in itertools.product((1, 7), (2**16, 2**28)):
        for start in range(0, 40, step * 8):
            rows = slice(start, start + step)
            index, distance = nearest_rows(query[rows], [part(gallery)], 10, memory_bytes=memory)
            assert index.tolist() == one[0][rows].tolist()
            assert distance.tolist() == one[1][rows].tolist()


def test_only_kept_rows_are_found() -> None:
    rng = np.random.default_rng(5)
    gallery, query = unit(rng, 500, 16), unit(rng, 5, 16)
    keep = np.flatnonzero(rng.random(500) < 0.1)
    parts = [part(gallery[:300], keep[keep < 300]), part(gallery[300:], keep[keep >= 300] - 300)]
    index, distance = nearest_rows(query, parts, 7)
    local, exact = oracle(query, gallery[keep], 7)
    assert index.tolist() == keep[local].tolist()
    assert distance == pytest.approx(exact, abs=1e-6)


def test_few_rows_none_and_a_thousand_equal_ones() -> None:
    rng = np.random.default_rng(6)
    query = unit(rng, 3, 8)
    index, distance = nearest_rows(query, [], 5)
    assert (index.shape, distance.shape) == ((3, 0), (3, 0))
    one = unit(rng, 1, 8)
    index, distance = nearest_rows(query, [part(one)], 5)
    assert index.tolist() == [[0]] * 3
    same = np.repeat(one, 1000, axis=0)
    index, distance = nearest_rows(query, [part(same)], 5)
    assert index.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert (distance == distance[:, :1]).all()
    assert nearest_rows(one, [part(same)], 3)[1].tolist() == [[0, 0, 0]]
    assert nearest_rows(query[:0], [part(same)], 5)[0].shape == (0, 5)
