"""From crops to the network's input: the one place that knows colour order and normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of RGB pixels scaled to 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of RGB pixels scaled to 0..1."""


def network_input(images_NHW3: Tensor) -> Tensor:
    """Crops as OpenCV gives them -> the network's input.

    Args:
        images_NHW3: (N, H, W, 3) uint8, BGR.

    Returns:
        (N, 3, H, W) float32, RGB, ImageNet-normalised, channels last in memory.

    >>> network_input(torch.zeros(1, 4, 2, 3, dtype=torch.uint8)).shape
    torch.Size([1, 3, 4, 2])
    """
    device = images_NHW3.device
    mean = 255 * torch.tensor(IMAGENET_MEAN[::-1], device=device)
    std = 255 * torch.tensor(IMAGENET_STD[::-1], device=device)
    normalised_NHW3 = (images_NHW3.float() - mean) / std
    return normalised_NHW3.flip(3).permute(0, 3, 1, 2)
