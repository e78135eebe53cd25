"""Retrieval figures of a network that is not exported yet, by the runtime's code.

Shape suffixes: N images, H x W pixels, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from sa_runtime.arrays import Image
from sa_runtime.crops import resize
from sa_runtime.datasets.base import ReidDataset
from sa_runtime.decoding import read_image
from sa_runtime.retrieval.evaluation import Embed, RetrievalReport, evaluate_embedder
from sa_runtime.retrieval.metrics import CONVENTIONS
from sa_runtime.retrieval.vectors import Vectors
from sa_training.distributed import shared_embed
from sa_training.network import SANetwork
from sa_training.pixels import network_input

BATCH = 64
_READERS = 4


def file_embedder(
    network: SANetwork, embedding: str = "parts", compute: torch.dtype | None = None
) -> Embed:
    """Image files to vectors with a network, wherever its weights are.

    Args:
        network: in evaluation mode.
        embedding: ``parts``, ``global`` or ``reduced``.
        compute: type of the convolutions, ``None`` for float32.

    Returns:
        A callable: N files -> (N, D) float32, rows of unit length.
    """
    device = next(network.parameters()).device
    size = network.config.height, network.config.width

    def crop(path: Path) -> Image:
        return resize(read_image(path), *size)

    def embed(paths: Sequence[Path]) -> Vectors:
        rows = []
        # cv2 decodes and resizes without holding the interpreter's lock.
        with ThreadPoolExecutor(_READERS) as readers, torch.inference_mode():
            crops = readers.map(crop, paths)
            for start in range(0, len(paths), BATCH):
                batch_NHW3 = np.stack([next(crops) for _ in paths[start : start + BATCH]])
                x_N3HW = network_input(torch.from_numpy(batch_NHW3).to(device))
                with torch.autocast(device.type, compute, enabled=compute is not None):
                    vectors_ND = network.embed(x_N3HW, embedding)
                rows.append(vectors_ND.float().cpu().numpy())
        return np.concatenate(rows)

    return embed


def evaluate_network(
    network: SANetwork,
    dataset: ReidDataset,
    *,
    embedding: str = "parts",
    compute: torch.dtype | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> RetrievalReport:
    """Retrieval figures of a network in all three CMC conventions.

    Where several processes are joined each embeds its share of the images, and all must call it.

    Args:
        network: in evaluation mode.
        dataset: with queries and gallery.
        embedding: ``parts`` (the authors'), ``global`` or ``reduced``.
        compute: type of the convolutions, ``None`` for float32.
        on_progress: called with the number of images just embedded.

    Raises:
        InputError: as :func:`sa_runtime.retrieval.evaluation.evaluate_embedder`.
    """
    embed = shared_embed(file_embedder(network, embedding, compute))
    return evaluate_embedder(embed, dataset, conventions=CONVENTIONS, on_progress=on_progress)
