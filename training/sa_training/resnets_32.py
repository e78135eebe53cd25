"""The ResNets of depth 6n + 2 for 32x32 images (He et al., arXiv 1512.03385, section 4.2).

A 3x3 stem and three stages of n basic blocks, 16, 32 and 64 channels wide; shortcuts that change
size are 1x1 convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.resnet import BasicBlock

from sa_runtime.errors import bad_value

DEPTHS_32 = (14, 20, 32, 56)
_WIDTHS = (16, 32, 64)


class ResNet32(nn.Module):
    """Under torchvision's names; ``layer4`` holds the third stage's blocks but its first.

    Args:
        depth: 6n + 2, n at least 2.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 2:
            raise bad_value("depth", depth, "expected 6n + 2 with n at least 2: 14, 20, 26, ...")
        first, second, third = _WIDTHS
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        self.layer1 = _stage(first, first, 1, blocks)
        self.layer2 = _stage(first, second, 2, blocks)
        self.layer3 = _stage(second, third, 2, 1)
        self.layer4 = _stage(third, third, 1, blocks - 1)


def resnet_32(depth: int) -> Callable[[], nn.Module]:
    """A function that builds a :class:`ResNet32` with random weights."""
    return lambda: ResNet32(depth)


def _stage(inside: int, outside: int, stride: int, blocks: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inside != outside:
        shortcut = nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride=stride, bias=False), nn.BatchNorm2d(outside)
        )
    first = BasicBlock(inside, outside, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outside, outside) for _ in range(blocks - 1)))
