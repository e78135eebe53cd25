"""An exported model on ONNX Runtime as tutorials show it: OpenCV resize, NumPy normalisation."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peer_workers.serve import Crops, Embed, serve

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def open_peer(model: str) -> tuple[Embed, dict[str, str]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    height, width = spec.shape[2:]

    def embed(crops: Crops) -> NDArray[np.float32]:
        resized = [
            cv2.cvtColor(cv2.resize(crop, (width, height)), cv2.COLOR_BGR2RGB) for crop in crops
        ]
        scaled = np.stack(resized).astype(np.float32) / np.float32(255)
        batch = np.ascontiguousarray(((scaled - MEAN) / STD).transpose(0, 3, 1, 2))
        vectors: NDArray[np.float32] = session.run(None, {spec.name: batch})[0]
        return vectors

    return embed, {"onnxruntime": onnxruntime.__version__}


if __name__ == "__main__":
    serve(open_peer)
