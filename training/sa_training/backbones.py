"""ResNet backbones by name, as the SA network uses them: last stride 1, no classifier.

Module names are torchvision's, so that its weights and the authors' checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

Stages = tuple[Tensor, Tensor, Tensor, Tensor]


class Backbone(nn.Module):
    """The four stages of a ResNet.

    Attributes:
        channels: of the four stages' outputs.
    """

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(resnet, name))
        for module in next(iter(self.layer4.children())).modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        self.channels: tuple[int, ...] = tuple(
            _out_channels(getattr(self, f"layer{k}")) for k in (1, 2, 3, 4)
        )

    def forward(self, x_N3HW: Tensor) -> Stages:
        """(N, 3, H, W) normalised RGB -> the maps of stages 1 to 4 (strides 4, 8, 16, 16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_N3HW))))
        l1 = self.layer1(x)
        l2 = self.layer2(l1)
        l3 = self.layer3(l2)
        return l1, l2, l3, self.layer4(l3)


def _out_channels(stage: nn.Module) -> int:
    convolutions = [m for m in list(stage.children())[-1].modules() if isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels


class _ThinResNet10(nn.Module):
    """One basic block a stage at half of ResNet's width, for two cores and one minute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inside = width
        for stage, (outside, stride) in enumerate(
            ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)), start=1
        ):
            shortcut = None
            if stride != 1 or inside != outside:
                shortcut = nn.Sequential(
                    nn.Conv2d(inside, outside, 1, stride=stride, bias=False),
                    nn.BatchNorm2d(outside),
                )
            block = BasicBlock(inside, outside, stride, shortcut)
            self.add_module(f"layer{stage}", nn.Sequential(block))
            inside = outside


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(name, weights=None)
        return network

    return build


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "resnet10-thin": _ThinResNet10,
    **{f"resnet{depth}": _torchvision(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
}


def backbone(name: str) -> Backbone:
    """Build a backbone with random weights.

    Raises:
        ValueError: an unknown name; the message lists the choices.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone={name!r}: expected one of {', '.join(BACKBONES)}")
    return Backbone(BACKBONES[name]())
