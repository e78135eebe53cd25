"""What figures do not depend on: order, memory, scale, junk."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import (
    CONVENTIONS,
    evaluate_vectors,
)
from sa_runtime.retrieval.rerank import Reranking
from tests.runtime.retrieval.test_metrics import assert_same, labels

whole = st.integers(-3, 3).map(float)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[NDArray[Any], Labels, NDArray[Any], Labels]:
    """Vectors and labels with at least one query that counts."""
    q, g = draw(st.integers(1, 5)), draw(st.integers(1, 10))
    query = draw(arrays(np.float32, (q, 3), elements=whole))
    gallery = draw(arrays(np.float32, (g, 3), elements=whole))
    person = draw(arrays(np.int64, q, elements=st.integers(1, 3)))
    camera = draw(arrays(np.int64, q, elements=st.integers(0, 2)))
    gallery_person = draw(arrays(np.int64, g, elements=st.integers(0, 3)))
    gallery_camera = draw(arrays(np.int64, g, elements=st.integers(0, 2)))
    gallery_person[0], gallery_camera[0] = person[0], camera[0] + 1
    return query, labels(person, camera), gallery, labels(gallery_person, gallery_camera)


@given(world=worlds(), data=st.data())
def test_the_order_of_the_gallery_does_not_matter(world: Any, data: st.DataObject) -> None:
    query, query_labels, gallery, gallery_labels = world
    order = np.array(data.draw(st.permutations(range(len(gallery)))))
    assert_same(
        evaluate_vectors(query, query_labels, gallery, gallery_labels, conventions=CONVENTIONS),
        evaluate_vectors(
            query,
            query_labels,
            gallery[order],
            gallery_labels.select(order),
            conventions=CONVENTIONS,
        ),
    )


@given(world=worlds(), memory_bytes=st.integers(1, 2000), scale=st.sampled_from([0.25, 8.0]))
def test_memory_scale_and_float16_do_not_matter(
    world: Any, memory_bytes: int, scale: float
) -> None:
    query, query_labels, gallery, gallery_labels = world
    expected = evaluate_vectors(
        query, query_labels, gallery, gallery_labels, conventions=CONVENTIONS
    )
    found = evaluate_vectors(
        (query * scale).astype(np.float16),
        query_labels,
        (gallery * scale).astype(np.float64),
        gallery_labels,
        conventions=CONVENTIONS,
        memory_bytes=memory_bytes,
    )
    assert_same(expected, found)


@given(world=worlds(), data=st.data(), rerank=st.sampled_from([None, Reranking(k1=3, k2=2)]))
def test_junk_changes_nothing(world: Any, data: st.DataObject, rerank: Reranking | None) -> None:
    query, query_labels, gallery, gallery_labels = world

    def with_junk(vectors: NDArray[Any], known: Labels) -> tuple[NDArray[Any], Labels]:
        places = data.draw(st.lists(st.integers(0, len(vectors)), min_size=1, max_size=4))
        return np.insert(vectors, places, 0.0, axis=0), labels(
            np.insert(known.person, places, -1), np.insert(known.camera, places, 1)
        )

    more_query, more_query_labels = with_junk(query, query_labels)
    more_gallery, more_gallery_labels = with_junk(gallery, gallery_labels)
    expected, found = (
        evaluate_vectors(*vectors_and_labels, conventions=CONVENTIONS, rerank=rerank)
        for vectors_and_labels in (
            world,
            (more_query, more_query_labels, more_gallery, more_gallery_labels),
        )
    )
    assert_same(expected, found)
    assert found.junk == len(more_query) - len(query) + len(more_gallery) - len(gallery)
    counts = more_query_labels.person != -1
    np.testing.assert_array_equal(found.average_precision[counts], expected.average_precision)
    assert np.isnan(found.average_precision[~counts]).all()
    assert not found.first_rank[~counts].any()


def test_reranking_is_what_ranks() -> None:
    rng = np.random.default_rng(8)
    person = np.repeat(np.arange(1, 9), 6)
    gallery = rng.normal(size=(9, 12))[person] + 0.9 * rng.normal(size=(48, 12))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    one_each = np.arange(48) % 6 == 0
    query, query_labels = gallery[one_each], labels(person[one_each], [0] * 8)
    others, other_labels = gallery[~one_each], labels(person[~one_each], [1] * 40)
    plain = evaluate_vectors(query, query_labels, others, other_labels)
    better = evaluate_vectors(
        query, query_labels, others, other_labels, rerank=Reranking(k1=5, k2=3)
    )
    assert better.mAP > plain.mAP + 0.02


def test_a_gallery_on_disk_is_evaluated_in_bounded_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    size, dim, memory_bytes = 30_000, 64, 2 * 2**20
    gallery = np.memmap(tmp_path / "gallery", np.float16, "w+", shape=(size, dim))
    gallery[:] = rng.normal(size=gallery.shape)
    # One person only: nearly every image is a match, which is the most there is to keep.
    gallery_labels = labels([1] * size, np.arange(size) % 3)
    query, query_labels = np.array(gallery[:100]), labels([1] * 100, [0] * 100)
    evaluate_vectors(
        query[:2], query_labels.select(np.arange(2)), gallery[:9], labels([1] * 9, [1] * 9)
    )
    tracemalloc.start()
    evaluate_vectors(query, query_labels, gallery, gallery_labels, memory_bytes=memory_bytes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < memory_bytes + 64 * size + 2**20
    assert peak < 100 * size * 4 / 2  # half of the matrix of distances
