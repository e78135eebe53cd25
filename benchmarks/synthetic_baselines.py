"""How far one gets on a synthetic data set without learning: a colour histogram, random weights.

Run: ``python benchmarks/synthetic_baselines.py ROOT``, ROOT as ``sa-deploy data synth`` made it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sa_runtime.crops import resize
from sa_runtime.datasets.base import Sample, cameras_of, persons_of
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.decoding import read_image
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_vectors
from sa_training.network import SANetwork
from sa_training.pixels import network_input
from sa_training.recipes import recipe

HEIGHT, WIDTH, STRIPES, MARGIN = 128, 64, 6, 12

Vectors = NDArray[np.float32]


def crops_of(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """(N, 128, 64, 3) uint8 BGR."""
    return np.stack([resize(read_image(sample.path), HEIGHT, WIDTH) for sample in samples])


def histograms(images: NDArray[np.uint8], *, grey_world: bool) -> Vectors:
    """(N, D) roots of 8x8x8 colour histograms of six stripes, so that L2 is Hellinger's distance.

    Args:
        images: (N, 128, 64, 3) uint8; the outer 12 columns on each side are left out.
        grey_world: whether each channel is brought to the same mean first, which undoes most of a
            camera's colour cast.
    """
    vectors = []
    for image in images:
        pixels = image[:, MARGIN : WIDTH - MARGIN]
        if grey_world:
            scaled = pixels * (128 / np.maximum(pixels.mean(axis=(0, 1)), 1))
            pixels = np.clip(scaled, 0, 255).astype(np.uint8)
        rows = [
            cv2.calcHist([stripe.copy()], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
            for stripe in np.array_split(pixels, STRIPES)
        ]
        vectors.append(np.sqrt(np.concatenate([row / row.sum() for row in rows])))
    return np.stack(vectors).astype(np.float32)


def untrained(images: NDArray[np.uint8], seed: int) -> Vectors:
    """(N, D) embeddings of the tiny recipe's network with its initial weights."""
    torch.manual_seed(seed)
    network = SANetwork(recipe("tiny").network).eval()
    with torch.inference_mode():
        parts = [
            network.embed(network_input(torch.from_numpy(images[at : at + 64])))
            for at in range(0, len(images), 64)
        ]
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="of the untrained network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = load_dataset("synthetic", options.root)
    labels = [
        Labels(person=persons_of(samples), camera=cameras_of(samples))
        for samples in (data.query, data.gallery)
    ]
    query, gallery = crops_of(data.query), crops_of(data.gallery)
    vectors = {
        "colour histogram": [histograms(side, grey_world=False) for side in (query, gallery)],
        "the same, grey world": [histograms(side, grey_world=True) for side in (query, gallery)],
        "untrained network": [untrained(side, options.seed) for side in (query, gallery)],
    }
    figures = {}
    for name, (of_query, of_gallery) in vectors.items():
        result = evaluate_vectors(of_query, labels[0], of_gallery, labels[1])
        figures[name] = {"mAP": round(result.mAP, 4), "rank1": round(result.rank(1), 4)}
    if options.json:
        print(json.dumps({"root": str(options.root), "queries": len(query), **figures}, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:24} mAP {100 * figure['mAP']:5.1f} %   rank-1 {100 * figure['rank1']:5.1f} %")


if __name__ == "__main__":
    main()
