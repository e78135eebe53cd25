"""Query expansion and database augmentation: vectors moved towards their nearest neighbours.

Alpha query expansion (Radenović, Tolias, Chum: TPAMI 2019): the vector itself with weight 1 plus
its nearest database vectors with weight ``cosine ** alpha``, scaled to unit length. ``alpha = 0``
is average query expansion.

The protocol of Market-1501 removes a query's own camera when it ranks; expansion does not. State
it beside figures that use it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sa_runtime.errors import InputError, check_fields
from sa_runtime.retrieval.distance import MEMORY_BYTES
from sa_runtime.retrieval.neighbours import nearest
from sa_runtime.retrieval.vectors import Floats, VectorRows, Vectors


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """How queries are expanded before they are ranked.

    It never changes, so that threads may share it.

    Attributes:
        neighbours: gallery vectors that are added to each query.
        alpha: power of the cosine that weighs them.
    """

    neighbours: int = 5
    alpha: float = 3.0

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        rules = [
            ("neighbours", self.neighbours >= 1, "at least 1"),
            ("alpha", self.alpha >= 0, "0 or more"),
        ]
        check_fields(self, rules, prefix="expansion: ")


def expand_queries(
    query: Vectors,
    gallery: Vectors,
    *,
    neighbours: int = 5,
    alpha: float = 3.0,
    memory_bytes: int = MEMORY_BYTES,
) -> Floats:
    """Move each query towards its nearest gallery vectors.

    Args:
        query: (Q, D) vectors.
        gallery: (G, D) vectors.
        neighbours: how many gallery vectors are added to each query; 0 only scales to unit length.
        alpha: power of the cosine that weighs them; a negative cosine weighs nothing.
        memory_bytes: working memory of the search.

    Returns:
        (Q, D) float32, rows of unit length.

    Raises:
        InputError: a negative ``neighbours`` or ``alpha``, or vectors that do not fit.

    >>> query, gallery = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.6, 0.8]])
    >>> [round(float(x), 3) for x in expand_queries(query, gallery, neighbours=1, alpha=0)[0]]
    [0.894, 0.447]
    """
    return _expanded(query, gallery, neighbours, alpha, memory_bytes, itself=False)


def augment_gallery(
    gallery: Vectors,
    *,
    neighbours: int = 5,
    alpha: float = 3.0,
    memory_bytes: int = MEMORY_BYTES,
) -> Floats:
    """Move each gallery vector towards its nearest others (database augmentation).

    Args:
        gallery: (G, D) vectors.
        neighbours: how many others are added to each.
        alpha: see :func:`expand_queries`.
        memory_bytes: working memory of the search.

    Returns:
        (G, D) float32, rows of unit length.

    Raises:
        InputError: a negative ``neighbours`` or ``alpha``, or not vectors.
    """
    return _expanded(gallery, gallery, neighbours, alpha, memory_bytes, itself=True)


def _expanded(
    vectors: Vectors,
    database: Vectors,
    neighbours: int,
    alpha: float,
    memory_bytes: int,
    *,
    itself: bool,
) -> Floats:
    """``itself``: the vectors are the database's rows, and none is its own neighbour."""
    if neighbours < 0 or alpha < 0:
        raise InputError(f"neighbours={neighbours}, alpha={alpha}: expected 0 or more")
    own = VectorRows(vectors, name="query")
    others = VectorRows(database, name="gallery")
    moved = np.empty(own.shape, np.float32)
    found = nearest(own, others, neighbours + 1, metric="cosine", memory_bytes=memory_bytes)
    for row, (index, distance) in enumerate(zip(found.index, found.distance, strict=True)):
        kept = np.flatnonzero(index != row)[:neighbours] if itself else slice(neighbours)
        cosine, near = np.float32(1) - distance[kept], index[kept]
        length = np.sqrt(others.norms[near])
        weight = np.zeros_like(cosine)
        alike = cosine > 0
        weight[alike] = cosine[alike] ** np.float32(alpha) / length[alike]
        total = _unit(own.read(row, row + 1)[0]) + weight @ others.take(near)
        moved[row] = _unit(total)
    return moved


def _unit(vector: Floats) -> Floats:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
