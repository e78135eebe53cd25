"""Figures of a network under training: retrieval by the runtime's code, accuracy of a classifier.

Shape suffixes: N images, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sa_runtime.crops import Image, read_image, resize
from sa_runtime.datasets.base import ReidDataset
from sa_runtime.retrieval.distance import Vectors
from sa_runtime.retrieval.evaluation import Embed, RetrievalReport, evaluate_embedder
from sa_runtime.retrieval.metrics import CONVENTIONS
from sa_training.distributed import Processes, shared_embed
from sa_training.network import SANetwork
from sa_training.pixels import network_input

BATCH = 64
_READERS = 4


def network_embed(
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

    With several processes each embeds its share of the images; all must call it alike.

    Args:
        network: in evaluation mode.
        dataset: with queries and gallery.
        embedding: ``parts`` (the authors'), ``global`` or ``reduced``.
        compute: type of the convolutions, ``None`` for float32.
        on_progress: called with the number of images just embedded.

    Raises:
        InputError: as :func:`sa_runtime.retrieval.evaluation.evaluate_embedder`.
    """
    embed = shared_embed(network_embed(network, embedding, compute), Processes.from_environment())
    return evaluate_embedder(embed, dataset, conventions=CONVENTIONS, on_progress=on_progress)


def top_accuracy(
    network: SANetwork,
    images_NHW3: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    *,
    compute: torch.dtype | None = None,
) -> dict[str, float]:
    """Accuracy of the global classifier: the label first, and among the first five.

    Args:
        network: in evaluation mode.
        images_NHW3: (N, H, W, 3) uint8 BGR of the network's size.
        labels_N: (N,) classes.
        compute: type of the convolutions, ``None`` for float32.

    Returns:
        ``top1`` and ``top5``, fractions.
    """
    device = next(network.parameters()).device
    at = network.config.classifiers.index("global")
    hits = np.zeros(2)
    with torch.inference_mode():
        for start in range(0, len(images_NHW3), 4 * BATCH):
            batch_NHW3 = torch.from_numpy(images_NHW3[start : start + 4 * BATCH]).to(device)
            with torch.autocast(device.type, compute, enabled=compute is not None):
                logits_NK = network(network_input(batch_NHW3)).logits[at]
            first = logits_NK.float().topk(min(5, logits_NK.shape[1]), dim=1).indices.cpu().numpy()
            right = first == labels_N[start : start + 4 * BATCH, None]
            hits += [right[:, 0].sum(), right.any(axis=1).sum()]
    return {"top1": hits[0] / len(labels_N), "top5": hits[1] / len(labels_N)}
