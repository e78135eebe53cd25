from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.errors import ContractError, InputError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.retrieval.rerank import RerankedDistances, Reranking
from sa_runtime.retrieval.search import rerank, top_k
from sa_runtime.retrieval.vectors import VectorRows

DIM = 6


def stored(vectors: NDArray[np.float32], space: str) -> StoredEmbeddings:
    contract = Contract(
        input=InputSpec(height=16, width=8),
        output=OutputSpec(dim=DIM),
        weights_sha256="0",
        space=space,
    )
    return StoredEmbeddings(rows=pa.table({}), vectors=vectors, contract=contract)


def unit(rng: np.random.Generator, rows: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(rows, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("search", [top_k, rerank])
def test_vectors_of_two_spaces_are_refused(search: Any) -> None:
    rng = np.random.default_rng(0)
    query, gallery = unit(rng, 3), unit(rng, 9)
    here, also = stored(query, "here"), stored(gallery, "here")
    found = search(here, also, 4)
    assert found.index.tolist() == search(query, gallery, 4).index.tolist()
    assert found.index.tolist() == search(query, also, 4).index.tolist()
    with pytest.raises(ContractError, match=r"query holds .* space here, gallery of space there"):
        search(here, stored(gallery, "there"), 4)


def test_rerank_sorts_by_the_reranked_distances() -> None:
    rng = np.random.default_rng(1)
    query, gallery, settings = unit(rng, 5), unit(rng, 40), Reranking(k1=6, k2=3)
    rows = VectorRows(query, name="query"), VectorRows(gallery, name="gallery")
    exact = [row.copy() for row in RerankedDistances(*rows, settings).rows()]
    expected = np.array(exact, np.float32)
    found = rerank(query, gallery, 10, settings=settings)
    assert found.index.tolist() == np.argsort(expected, axis=1, kind="stable")[:, :10].tolist()
    assert np.array_equal(found.distance, np.sort(expected, axis=1)[:, :10])
    assert np.array_equal(found.furthest, expected.max(axis=1))
    assert found.index.tolist() != top_k(query, gallery, 10).index.tolist()


def test_rerank_takes_all_of_a_small_gallery_and_refuses_none() -> None:
    vectors = unit(np.random.default_rng(2), 4)
    assert rerank(vectors[:2], vectors, 9).index.shape == (2, 4)
    with pytest.raises(InputError, match="k=0: expected at least 1"):
        rerank(vectors, vectors, 0)
