from __future__ import annotations

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.retrieval.expansion import augment_gallery, expand_queries


def test_a_query_moves_by_hand() -> None:
    # Neighbours by cosine: (0.8, 0.6) with 0.8, then (0, 2) with 0; weights 0.8 ** 2 and none.
    query, gallery = np.array([[3.0, 0.0]]), np.array([[0.0, 2.0], [1.6, 1.2], [-1.0, 0.0]])
    total = np.array([1 + 0.64 * 0.8, 0.64 * 0.6])
    moved = expand_queries(query, gallery, neighbours=3, alpha=2)
    np.testing.assert_allclose(moved[0], total / np.linalg.norm(total), rtol=1e-6)


def test_alpha_0_is_the_average_of_alike_vectors() -> None:
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [-0.6, 0.8]])
    moved = expand_queries(query, gallery, neighbours=2, alpha=0)
    np.testing.assert_allclose(moved[0], np.array([1.6, 0.8]) / np.hypot(1.6, 0.8), rtol=1e-6)


def test_no_neighbours_only_scales() -> None:
    query = np.array([[3.0, 4.0], [0.0, 0.0]])
    moved = expand_queries(query, query, neighbours=0)
    np.testing.assert_allclose(moved, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


def test_a_gallery_vector_is_not_its_own_neighbour() -> None:
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    moved = augment_gallery(gallery, neighbours=1, alpha=1)
    np.testing.assert_allclose(moved[0], [1, 0], atol=1e-6)
    total = np.array([0.6 + 0.6, 0.8])
    np.testing.assert_allclose(moved[2], total / np.linalg.norm(total), rtol=1e-6)


def test_expansion_pulls_a_noisy_query_to_its_person() -> None:
    rng = np.random.default_rng(0)
    centre = np.eye(8)[0]
    gallery = centre + 0.1 * rng.normal(size=(20, 8))
    query = (centre + 0.5 * rng.normal(size=8))[None]
    before = query[0] @ centre / np.linalg.norm(query[0])
    assert expand_queries(query, gallery)[0] @ centre > before + 0.05


def test_negative_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"neighbours=-1, alpha=3\.0: expected 0 or more"):
        expand_queries(np.ones((1, 2)), np.ones((1, 2)), neighbours=-1)
