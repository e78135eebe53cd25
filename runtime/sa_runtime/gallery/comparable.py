"""The vectors of a query, once they are known to compare with a gallery's."""

from __future__ import annotations

import numpy as np

from sa_runtime.artefact.contract import Contract, require_same_space
from sa_runtime.errors import InputError
from sa_runtime.retrieval.search import Stored
from sa_runtime.retrieval.vectors import Floats, VectorRows, Vectors


def query_vectors(query: Stored | Vectors, contract: Contract, name: str) -> Floats:
    """(Q, D) float32 vectors.

    Args:
        query: (Q, D) vectors, or what ``read_embeddings`` read.
        contract: of the gallery.
        name: of the gallery, for messages.

    Raises:
        InputError: vectors of another size, or not finite.
        ContractError: vectors of another feature space.
    """
    if not isinstance(query, np.ndarray):
        require_same_space(query.contract.space, contract.space, names=("query", name))
        query = query.vectors
    vectors = VectorRows(query, name="query")
    if vectors.shape[1] != contract.output.dim:
        raise InputError(
            f"query vectors have {vectors.shape[1]} dimensions, those of {name} "
            f"{contract.output.dim}: expected equal ones; embed the query with the gallery's model"
        )
    return vectors.read(0, len(vectors))
