"""BoxMOT's ReID backends as installed from PyPI; the model's suffix chooses among them."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_workers.serve import Crops, Embed, serve


def open_peer(model: str) -> tuple[Embed, dict[str, str]]:
    reid: Any = importlib.import_module("boxmot.reid.core.runtime").ReID(Path(model), device="cpu")
    # Its OpenVINO backend takes the crop size from the name's architecture, not from the graph.
    if network := getattr(reid.model, "executable_network", None):
        *_, height, width = network.inputs[0].partial_shape
        reid.model.input_shape = (height.get_length(), width.get_length())

    def embed(crops: Crops) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = reid(list(crops))
        return vectors

    names = ("boxmot", "torch", "onnxruntime", "openvino")
    return embed, {name: version(name) for name in names}


if __name__ == "__main__":
    serve(open_peer)
