"""What torchreid's FeatureExtractor does: PIL resize, a normalised tensor per crop, eager FP32."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import transforms

from benchmarks.peer_workers.serve import Crops, Embed, serve
from sa_runtime.system.environment import cores
from sa_training.checkpoints import load_checkpoint


def open_peer(model: str) -> tuple[Embed, dict[str, str]]:
    # torch by itself may take one core of two; the others take all there are.
    torch.set_num_threads(cores())
    network = load_checkpoint(Path(model)).network.eval()
    config = network.config
    prepare = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize((config.height, config.width)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def embed(crops: Crops) -> NDArray[np.float32]:
        # FeatureExtractor takes RGB: callers turn OpenCV's BGR round first.
        images = [prepare(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)) for crop in crops]
        with torch.no_grad():
            vectors: NDArray[np.float32] = network.embed(torch.stack(images)).numpy()
        return vectors

    return embed, {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


if __name__ == "__main__":
    serve(open_peer)
