"""A foreign network in torch as it is deployed: crops to unit vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sa_export.kinds import InputKind
from sa_export.preprocessing import Preprocessing


class AdoptedModule(nn.Module):
    """Crops in, unit vectors out.

    Args:
        network: (N, 3, H, W) as it expects its pixels -> (N, D).
        preprocessing: what it expects.
        input_kind: uint8 (N, H, W, 3) BGR, or float32 (N, 3, H, W) RGB from 0 to 1.
    """

    mean_131: Tensor
    scale_131: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        input_kind: InputKind = "uint8-nhwc",
    ) -> None:
        super().__init__()
        self.network = network
        self._raw = input_kind == "uint8-nhwc"
        self._flip = preprocessing.colour != ("bgr" if self._raw else "rgb")
        unit = preprocessing.divisor if self._raw else preprocessing.divisor / 255
        mean = np.array(preprocessing.mean) * unit
        scale = 1 / (np.array(preprocessing.std) * unit)
        self.register_buffer("mean_131", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("scale_131", torch.tensor(scale, dtype=torch.float32)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Images -> (N, D) float32, rows of unit length."""
        x_N3HW = images.float().permute(0, 3, 1, 2) if self._raw else images
        if self._flip:
            x_N3HW = x_N3HW.flip(1)
        vectors = self.network((x_N3HW - self.mean_131) * self.scale_131).flatten(1).float()
        length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        unit: Tensor = vectors / length.clamp_min(1e-12)
        return unit
