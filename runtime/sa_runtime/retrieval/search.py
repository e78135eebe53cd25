"""The nearest gallery images of every query, among vectors that compare.

Vectors that :func:`sa_runtime.outputs.read.read_embeddings` read carry the contract of the model
that made them; two of different feature spaces are refused. Bare arrays carry nothing, so that
nothing can be checked but their shape.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sa_runtime.artefact.contract import Contract, require_same_space
from sa_runtime.errors import bad_value
from sa_runtime.retrieval.distance import MEMORY_BYTES, Metric
from sa_runtime.retrieval.neighbours import Neighbours, nearest
from sa_runtime.retrieval.rerank import RerankedDistances, Reranking
from sa_runtime.retrieval.vectors import VectorRows, Vectors


class Stored(Protocol):
    """Vectors with their contract: :class:`sa_runtime.outputs.base.StoredEmbeddings`."""

    @property
    def vectors(self) -> Vectors:
        """(N, D)."""

    @property
    def contract(self) -> Contract:
        """Of the model that made them."""


def top_k(
    query: Stored | Vectors,
    gallery: Stored | Vectors,
    k: int,
    *,
    metric: Metric = "euclidean",
    memory_bytes: int = MEMORY_BYTES,
) -> Neighbours:
    """The ``k`` nearest gallery vectors of every query.

    Args:
        query: (Q, D) vectors, or what ``read_embeddings`` read.
        gallery: (G, D) vectors of any number, or what ``read_embeddings`` read.
        k: neighbours wanted; all where the gallery is smaller.
        metric: ``euclidean`` (squared) or ``cosine``; both rank unit vectors alike.
        memory_bytes: working memory, beside the result.

    Raises:
        InputError: k below 1, or vectors that do not fit.
        ContractError: query and gallery are of different feature spaces.

    >>> gallery = np.array([[0, 0], [3, 0], [1, 0], [1, 0]], np.float32)
    >>> top_k(np.zeros((1, 2), np.float32), gallery, 3).index.tolist()
    [[0, 2, 3]]
    """
    return nearest(*_comparable(query, gallery), k, metric=metric, memory_bytes=memory_bytes)


def rerank(
    query: Stored | Vectors,
    gallery: Stored | Vectors,
    k: int,
    *,
    settings: Reranking | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Neighbours:
    """The ``k`` nearest gallery vectors of every query, re-ranked by k-reciprocal neighbours.

    All queries and gallery vectors are compared with one another first, so that this takes several
    times as long as :func:`top_k`, and a query's result depends on the other queries.

    Args:
        query: (Q, D) vectors of unit length, or what ``read_embeddings`` read.
        gallery: (G, D) vectors of unit length, or what ``read_embeddings`` read.
        k: neighbours wanted; all where the gallery is smaller.
        settings: the three parameters, the paper's by default.
        memory_bytes: working memory; beside it about 2 kB an image.

    Returns:
        Neighbours by the mixed distance, which is no squared Euclidean one.

    Raises:
        InputError: k below 1, no vectors, or vectors that do not fit.
        ContractError: query and gallery are of different feature spaces.

    >>> gallery = np.array([[0, 1], [1, 0], [0.8, 0.6]], np.float32)
    >>> rerank(gallery[1:2], gallery, 2, settings=Reranking(k1=2, k2=1)).index.tolist()
    [[1, 2]]
    """
    if k < 1:
        raise bad_value("k", k, "expected at least 1 neighbour")
    rows = _comparable(query, gallery)
    source = RerankedDistances(*rows, settings or Reranking(), memory_bytes=memory_bytes)
    total, size = source.shape
    k = min(k, size)
    found = Neighbours(
        index=np.empty((total, k), np.int64),
        distance=np.empty((total, k), np.float32),
        furthest=np.empty(total, np.float32),
    )
    for index, row in enumerate(source.rows(memory_bytes)):
        found.index[index] = np.argsort(row, kind="stable")[:k]
        found.distance[index] = row[found.index[index]]
        found.furthest[index] = row.max()
    return found


def _comparable(
    query: Stored | Vectors, gallery: Stored | Vectors
) -> tuple[VectorRows, VectorRows]:
    """Both sides as rows; raises ContractError where both say their space and it differs."""
    if not isinstance(query, np.ndarray) and not isinstance(gallery, np.ndarray):
        spaces = query.contract.space, gallery.contract.space
        require_same_space(*spaces, names=("query", "gallery"))
    return _rows(query, "query"), _rows(gallery, "gallery")


def _rows(side: Stored | Vectors, name: str) -> VectorRows:
    return VectorRows(side if isinstance(side, np.ndarray) else side.vectors, name=name)
