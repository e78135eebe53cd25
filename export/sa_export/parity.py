"""Proof that an artefact gives the network's embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sa_runtime.errors import ParityError
from sa_runtime.runners.base import Embeddings, Images
from sa_training.network import SANetwork
from sa_training.pixels import network_input

Embed = Callable[[Images], Embeddings]
PARITY_BATCHES = (1, 3, 16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of an artefact with its network.

    Attributes:
        crops: how many were compared, at each of ``batches``.
        batches: batch sizes.
        min_cosine: of the worst crop at the worst batch size.
        max_difference: largest absolute difference of any coordinate.
    """

    crops: int
    batches: tuple[int, ...]
    min_cosine: float
    max_difference: float


def network_embed(network: SANetwork, embedding: str) -> Embed:
    """The FP32 network as a function from crops to embeddings, 16 crops at a time."""
    network.eval()

    def embed(images: Images) -> Embeddings:
        with torch.inference_mode():
            parts = [
                network.embed(
                    network_input(torch.from_numpy(images[i : i + 16])), embedding
                ).numpy()
                for i in range(0, len(images), 16)
            ]
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, network.embedding_dim(embedding)), np.float32)
        )

    return embed


def measure_parity(
    artefact: Embed,
    reference: NDArray[np.float32],
    images: Images,
    batches: Sequence[int] = PARITY_BATCHES,
) -> Parity:
    """Embed the crops in batches of every size and compare with the reference.

    Args:
        artefact: crops (N, H, W, 3) uint8 BGR -> (N, D).
        reference: (N, D) float32, unit rows.
        images: the crops.
        batches: batch sizes.
    """
    min_cosine, max_difference = 1.0, 0.0
    for size in batches:
        vectors = np.concatenate(
            [artefact(images[i : i + size]) for i in range(0, len(images), size)]
        )
        cosine = np.einsum("nd,nd->n", vectors.astype(np.float64), reference.astype(np.float64))
        min_cosine = min(min_cosine, float(cosine.min()))
        max_difference = max(max_difference, float(np.abs(vectors - reference).max()))
    return Parity(
        crops=len(images),
        batches=tuple(batches),
        min_cosine=min_cosine,
        max_difference=max_difference,
    )


def require_parity(parity: Parity, *, min_cosine: float, name: str) -> None:
    """Refuse an artefact that disagrees with its network.

    Raises:
        ParityError: the worst cosine is below ``min_cosine``.
    """
    if not parity.min_cosine >= min_cosine:
        raise ParityError(
            f"{name}: cosine to the FP32 network is {parity.min_cosine:.6f} on the worst of "
            f"{parity.crops} crops, expected at least {min_cosine}; no file was left. "
            "Try another --opset or a newer onnxruntime"
        )
