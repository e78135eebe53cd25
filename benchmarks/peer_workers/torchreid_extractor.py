"""torchreid's FeatureExtractor as installed from PyPI; the model's name is its file's."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peer_workers.serve import Crops, Embed, serve


def open_peer(model: str) -> tuple[Embed, dict[str, str]]:
    # torch by itself may take one core of two; the others take all there are.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    extractor: Any = importlib.import_module("torchreid.reid.utils").FeatureExtractor(
        Path(model).stem, model, device="cpu", verbose=False
    )

    def embed(crops: Crops) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = extractor([crop[..., ::-1].copy() for crop in crops]).numpy()
        return vectors

    return embed, {name: version(name) for name in ("torchreid", "torch")}


if __name__ == "__main__":
    serve(open_peer)
