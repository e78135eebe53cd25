"""What the SA network asks of a backbone.

Shape suffixes: N images, C channels, H x W map.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

from torch import Tensor, nn

STAGES = 4
"""Maps of a backbone that has stages: those of stages 1 to 3, which carry deep supervision, and
the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the SA network has to know of a backbone before it is built.

    Attributes:
        staged: whether there are the maps of stages 1 to 3, which deep supervision reads.
        height, width: of the last map.
    """

    staged: bool
    height: int
    width: int


class Backbone(nn.Module, ABC):
    """Images to maps.

    Attributes:
        channels: of the maps.
        authors_start: whether random weights are drawn as the authors draw them; others keep the
            initialisation of their own code.
    """

    channels: tuple[int, ...]
    authors_start = False

    @abstractmethod
    def forward(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) normalised RGB -> the maps, each (N, C, H', W'), the last one last."""

    def own_name(self, name: str) -> str:
        """A weight's name in this module, of the name in the files of the network it is made of."""
        return name
