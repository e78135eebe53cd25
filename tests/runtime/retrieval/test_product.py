"""Ties are ties, and distances depend on their two vectors alone."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime.retrieval import product
from sa_runtime.retrieval.distance import Metric, VectorDistances
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import CONVENTIONS, evaluate_vectors
from sa_runtime.retrieval.neighbours import nearest, nearest_among
from sa_runtime.retrieval.product import ExactProduct, SingleProduct, sums_alike
from sa_runtime.retrieval.rerank import Reranking
from sa_runtime.retrieval.vectors import VectorRows, squared_lengths

Array = NDArray[Any]


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    vectors: Array = rng.normal(size=shape)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors.astype(np.float32)


def by_definition(query: Array, gallery: Array) -> NDArray[np.float64]:
    return np.array(
        [((row - gallery.astype(float)) ** 2).sum(axis=1) for row in query.astype(float)]
    )


def oracle_map(query: Array, known: Labels, gallery: Array, others: Labels) -> float:
    """mAP of float64 distances; every match is told from the others by their difference alone."""
    precisions = []
    for row, person, camera in zip(
        by_definition(query, gallery), known.person, known.camera, strict=True
    ):
        right = (others.person == person) & (others.camera != camera)
        kept = right | (others.person != person)
        if right.any():
            at = row[right]
            hits = (row[None, right] <= at[:, None]).sum(axis=1)
            precisions.append((hits / (row[None, kept] <= at[:, None]).sum(axis=1)).mean())
    return float(np.mean(precisions))


@pytest.fixture(params=["exact", "single", "one cut"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to compute distances, whatever the size would choose."""
    if request.param == "single" and not sums_alike():
        pytest.skip("this BLAS sums a pair by its place; the exact product serves")
    if request.param != "exact":
        monkeypatch.setattr(product, "EXACT_MULTIPLICATIONS", -1)
    if request.param == "one cut":
        monkeypatch.setattr(product, "sums_alike", lambda: False)
    return str(request.param)


def rows_of(vectors: Array) -> VectorRows:
    return VectorRows(vectors, name="some")


def matrix(
    query: Array, gallery: Array, metric: Metric = "euclidean", memory: int = 2**27
) -> Array:
    source = VectorDistances(rows_of(query), rows_of(gallery), metric)
    return np.array([row.copy() for row in source.rows(memory)])


@pytest.mark.parametrize("dim", [64, 512, 1536])
@pytest.mark.parametrize("rerank", [None, Reranking(k1=6, k2=3)])
def test_a_network_that_gives_one_vector_scores_0_at_rank_1(
    dim: int, rerank: Reranking | None, way: str
) -> None:
    rng = np.random.default_rng(dim)
    for queries in (1, 2, 3, 5, 8, 13, 20):
        for size in (13, 14, 15, 16, 17, 100):
            vector = unit(rng, dim)
            query, gallery = np.tile(vector, (queries, 1)), np.tile(vector, (size, 1))
            known = Labels(person=np.arange(queries) % 5, camera=np.zeros(queries, np.int64))
            others = Labels(person=np.arange(size) % 7, camera=np.ones(size, np.int64))
            result = evaluate_vectors(
                query, known, gallery, others, rerank=rerank, conventions=CONVENTIONS
            )
            matches = np.bincount(others.person)[known.person]
            assert result.rank(1) == 0, (queries, size)
            assert result.mAP == pytest.approx(np.mean(matches / size), abs=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("dim", "queries", "size"), [(64, 5, 17), (512, 70, 333), (1536, 20, 130)])
def test_equal_vectors_have_equal_distances_in_any_place_order_and_memory(
    metric: Metric, dim: int, queries: int, size: int, way: str
) -> None:
    rng = np.random.default_rng(size)
    query, gallery = unit(rng, queries, dim), unit(rng, size, dim)
    gallery[size // 2 :] = gallery[rng.integers(0, size // 2, size - size // 2)]
    query[queries // 2 :] = query[rng.integers(0, queries // 2, queries - queries // 2)]
    found = matrix(query, gallery, metric)
    half = 2.0 if metric == "cosine" else 1.0
    np.testing.assert_allclose(found, by_definition(query, gallery) / half, atol=2e-6)
    order, turn = rng.permutation(size), rng.permutation(queries)
    for memory in (1, 40_000, 2**20):
        np.testing.assert_array_equal(matrix(query, gallery, metric, memory), found)
    np.testing.assert_array_equal(
        matrix(query[turn], gallery[order], metric), found[turn][:, order]
    )
    np.testing.assert_array_equal(matrix(query[:1], gallery[3:], metric), found[:1, 3:])
    single = VectorDistances(rows_of(query), rows_of(gallery), metric).row(queries - 1)
    np.testing.assert_array_equal(single, found[-1])
    _, same = np.unique(gallery, axis=0, return_inverse=True)
    for group in range(same.max() + 1):
        assert np.ptp(found[:, same == group], axis=1).max() == 0


def test_stacked_rows_have_the_distances_of_one_array(way: str) -> None:
    rng = np.random.default_rng(3)
    first, second = unit(rng, 100, 96), unit(rng, 75, 96)
    both = VectorRows.stacked(rows_of(first), rows_of(second))
    whole = rows_of(np.concatenate([first, second]))
    expected = list(VectorDistances(whole, whole).rows())
    for memory in (1, 60_000, 2**20):
        found = [row.copy() for row in VectorDistances(both, both).rows(memory)]
        np.testing.assert_array_equal(found, expected)
        index = nearest(both, both, 9, memory_bytes=memory).index
        assert index.tolist() == nearest(whole, whole, 9).index.tolist()


@pytest.mark.parametrize("dim", [40, 512, 1501])
def test_every_row_finds_its_nearest_among_all_as_if_each_pair_were_compared_twice(
    dim: int, way: str
) -> None:
    rng = np.random.default_rng(dim)
    first, second = unit(rng, 90, dim), unit(rng, 101, dim)
    second[50:] = first[rng.integers(0, 90, 51)]  # ties, which the lower row wins
    both = VectorRows.stacked(rows_of(first), rows_of(second))
    expected = nearest(both, both, 7)
    apart = by_definition(*[np.concatenate([first, second])] * 2)
    nearer = np.take_along_axis(apart, expected.index, axis=1)
    np.testing.assert_allclose(nearer, np.sort(apart, axis=1)[:, :7], atol=1e-5)
    for memory in (10**5, 10**6, 2**27):
        found = nearest_among(both, 7, memory_bytes=memory)
        np.testing.assert_array_equal(found.index, expected.index)
        np.testing.assert_array_equal(found.distance, expected.distance)
        np.testing.assert_array_equal(found.furthest, expected.furthest)


def test_rows_that_are_all_equal_have_the_first_ones_as_nearest(way: str) -> None:
    rows = rows_of(np.tile(unit(np.random.default_rng(0), 300), (150, 1)))
    for memory in (10**5, 10**6):
        assert nearest_among(rows, 4, memory_bytes=memory).index.tolist() == [[0, 1, 2, 3]] * 150
        assert nearest(rows, rows, 4, memory_bytes=memory).index.tolist() == [[0, 1, 2, 3]] * 150


def test_clusters_of_more_than_k_are_told_by_distance_then_row(way: str) -> None:
    # One row of many has more to be found in a tile than it has room for.
    rng = np.random.default_rng(4)
    vectors = unit(rng, 400, 64)
    vectors[200:260] = vectors[7] + 1e-3 * unit(rng, 60, 64)
    rows = rows_of(vectors)
    expected = np.argsort(by_definition(vectors, vectors), axis=1, kind="stable")[:, :5]
    for memory in (10**5, 10**6):
        found = nearest_among(rows, 5, memory_bytes=memory)
        exact = np.take_along_axis(by_definition(vectors, vectors), found.index, axis=1)
        best = np.take_along_axis(by_definition(vectors, vectors), expected, axis=1)
        np.testing.assert_allclose(exact, best, atol=1e-6)


def test_the_length_of_a_row_does_not_depend_on_those_read_with_it() -> None:
    for dim in (7, 512, 12_288):
        vector = unit(np.random.default_rng(dim), dim)
        lengths = {float(np.ptp(rows_of(np.tile(vector, (n, 1))).norms)) for n in (2, 22, 43)}
        assert lengths == {0.0}
        assert squared_lengths(vector[None])[0] == rows_of(np.tile(vector, (5, 1))).norms[3]


def world(seed: int, spread: float | None) -> tuple[Array, Labels, Array, Labels]:
    """Hard people in 512 numbers; with a spread, all crowd around one direction."""
    rng = np.random.default_rng(seed)
    centre, direction = rng.normal(size=(40, 512)), unit(rng, 512).astype(float)

    def side(count: int, camera: int) -> tuple[Array, Labels]:
        person = np.arange(count) % 40
        vectors = centre[person] + 3 * rng.normal(size=(count, 512))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if spread is not None:
            vectors = direction + spread * vectors
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32), Labels(person=person, camera=np.full(count, camera))

    return *side(80, 0), *side(400, 1)


@pytest.mark.parametrize("spread", [None, 3e-2, 3e-4, 3e-5])
@pytest.mark.parametrize("seed", range(3))
def test_a_collapsed_network_gets_the_map_of_float64(
    seed: int, spread: float | None, way: str
) -> None:
    vectors = world(seed, spread)
    expected = oracle_map(*vectors)
    assert 0.2 < expected < 0.9
    # Beyond the sizes at which products are exact, one pair in a thousand swaps its places; the
    # more pairs there are, the less it weighs; here one moves the mean by up to 4e-5.
    tolerance = 1e-9 if way == "exact" else 5e-5
    assert evaluate_vectors(*vectors).mAP == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("rerank", [None, Reranking(k1=8, k2=4)])
def test_figures_do_not_depend_on_memory_or_the_order_of_the_gallery(
    rerank: Reranking | None, way: str
) -> None:
    query, known, gallery, others = world(5, 3e-4)
    first = evaluate_vectors(query, known, gallery, others, conventions=CONVENTIONS, rerank=rerank)
    order = np.random.default_rng(0).permutation(len(gallery))
    for memory, kept in ((1, slice(None)), (10**5, order), (10**6, order[::-1])):
        again = evaluate_vectors(
            query,
            known,
            gallery[kept],
            others.select(np.arange(len(gallery))[kept]),
            conventions=CONVENTIONS,
            rerank=rerank,
            memory_bytes=memory,
        )
        assert again.average_precision.tolist() == first.average_precision.tolist()
        assert {k: v.tolist() for k, v in again.cmc.items()} == {
            k: v.tolist() for k, v in first.cmc.items()
        }


PRINTED = """
import hashlib
import numpy as np
from sa_runtime.retrieval import product
from sa_runtime.retrieval.distance import VectorDistances
from sa_runtime.retrieval.vectors import VectorRows, squared_lengths
product.EXACT_MULTIPLICATIONS = -1
rng = np.random.default_rng(0)
for dim in (800, 900):
    rows = VectorRows(rng.normal(size=(700, dim)).astype(np.float32), name="some")
    values = b"".join(row.tobytes() for row in VectorDistances(rows, rows).rows())
    print(hashlib.sha256(values).hexdigest())
"""


def test_distances_do_not_depend_on_threads() -> None:
    printed = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", PRINTED]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        printed.add(done.stdout)
    assert len(printed) == 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 300),
    size=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1.0, 777.0]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_exact_products_are_those_of_the_definition(
    seed: int, dim: int, size: int, scale: float, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    query: Array = (scale * rng.normal(size=(3, dim))).astype(dtype)
    gallery: Array = (scale * rng.normal(size=(size, dim))).astype(dtype)
    gallery[0] = query[0]
    rows = rows_of(query), rows_of(gallery)
    expected = by_definition(query, gallery)
    for cuts, relative in ((1, 1e-4), (2, 1e-10)):
        exact = ExactProduct(*rows, unit=False, cuts=cuts)
        out = np.empty(expected.shape)
        exact.fill(out, exact.block(0, 3), 0, size)
        largest = max(float(np.abs(query).max()), float(np.abs(gallery).max()), 1e-300)
        np.testing.assert_allclose(out, expected, rtol=relative, atol=relative * dim * largest**2)
        assert out[0, 0] == 0


def test_the_way_is_chosen_by_size_and_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = np.eye(3, 8, dtype=np.float32), np.ones((40_000, 8), np.float32)
    small = product.product_of(rows_of(few), rows_of(few), unit=False)
    assert isinstance(small, ExactProduct)
    for alike, kind in ((True, SingleProduct), (False, ExactProduct)):
        monkeypatch.setattr(product, "sums_alike", lambda alike=alike: alike)
        assert isinstance(product.product_of(rows_of(many), rows_of(many), unit=False), kind)
