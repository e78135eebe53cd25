"""ResNets by name, as the SA network uses them: last stride 1, no classifier.

Module names are torchvision's, so that its weights and the authors' checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sa_training.backbones.base import Backbone
from sa_training.resnets_32 import DEPTHS_32, resnet_32


class ResNetBackbone(Backbone):
    """The four stages of a ResNet.

    Attributes:
        channels: of the four stages' outputs.
    """

    authors_start = True
    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    relu: nn.ReLU
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

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

    def forward(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) normalised RGB -> the maps of stages 1 to 4.

        Their strides are 4, 8, 16, 16; those of the ``-32`` backbones 1, 2, 4, 4.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_N3HW))))
        l1_NCHW = self.layer1(x)
        l2_NCHW = self.layer2(l1_NCHW)
        l3_NCHW = self.layer3(l2_NCHW)
        return l1_NCHW, l2_NCHW, l3_NCHW, self.layer4(l3_NCHW)


def _out_channels(stage: nn.Module) -> int:
    convolutions = [m for m in list(stage.children())[-1].modules() if isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels


class _ThinResNet10(nn.Module):
    """One basic block a stage at half of ResNet's width, for two cores and one minute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
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


def _for_32x32(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A ResNet for 32x32 images: a 3x3 stem of stride 1 and no max pooling (He et al.)."""

    def build_small() -> nn.Module:
        resnet = build()
        width = resnet.get_parameter("conv1.weight").shape[0]
        resnet.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        resnet.maxpool = nn.Identity()
        return resnet

    return build_small


RESNETS: dict[str, Callable[[], nn.Module]] = {
    "resnet10-thin": _ThinResNet10,
    **{f"resnet{depth}": _torchvision(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    "resnet10-thin-32": _for_32x32(_ThinResNet10),
    "resnet18-32": _for_32x32(_torchvision("resnet18")),
    **{f"resnet{depth}-32": resnet_32(depth) for depth in DEPTHS_32},
}
