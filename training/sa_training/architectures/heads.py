"""What re-ID networks put behind a backbone: pooling, the BNNeck, and several of them side by side.

Luo et al., "Bag of Tricks" (arXiv 1903.07071) for the BNNeck; Radenović et al. (arXiv 1711.02512)
for generalised mean pooling.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["avg", "max", "gem", "none"]


class GeneralizedMean(nn.Module):
    """The mean of the map's p-th powers, to the power of 1/p; p is learnt."""

    def __init__(self, power: float = 3.0, least: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), power))
        self._least = least

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        powered = x_NCHW.clamp(min=self._least).pow(self.p)
        return powered.mean(dim=(2, 3)).pow(1 / self.p)


class AverageMap(nn.Module):
    """The mean of a map."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return x_NCHW.mean(dim=(2, 3))


class MaxMap(nn.Module):
    """The largest value of each channel."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return x_NCHW.amax(dim=(2, 3))


def pooling(kind: Pooling) -> nn.Module:
    """A pooling by name; ``none`` takes vectors as they are."""
    return {"avg": AverageMap, "max": MaxMap, "gem": GeneralizedMean, "none": nn.Identity}[kind]()


class ReidHead(nn.Module):
    """Pooling, a reduction and a batch norm, each where there is one.

    Args:
        pool: what makes a vector of a map.
        channels: of the map.
        features: that the reduction leaves, 0 for none.
        neck: whether a batch norm follows (BNNeck).
    """

    def __init__(self, pool: nn.Module, channels: int, *, features: int = 0, neck: bool) -> None:
        super().__init__()
        self.pool = pool
        self.reduce: nn.Module = nn.Identity()
        if features:
            self.reduce = nn.Linear(channels, features, bias=False)
        self.neck: nn.Module = nn.BatchNorm1d(features or channels) if neck else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), or (N, C) where nothing is pooled -> (N, D)."""
        embedding: Tensor = self.neck(self.reduce(self.pool(x)))
        return embedding


class ReidNetwork(nn.Module):
    """A backbone and a head.

    Args:
        backbone: (N, 3, H, W) -> what the head takes.
        head: -> (N, D).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, D), not of unit length."""
        embedding: Tensor = self.head(self.backbone(x_N3HW))
        return embedding
