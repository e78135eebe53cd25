"""fast-reid's ResNets (BoT, AGW, SBS) and its MGN, told from their weights.

They differ from torchvision's ResNet in a max pooling without padding, and may have instance norms
beside batch norms (IBN-a), squeeze-and-excitation and non-local blocks. Attribute names follow
fast-reid's checkpoints (https://github.com/JDAI-CV/fast-reid, version 1.4).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sa_training.architectures.heads import GeneralizedMean, ReidHead, pooling

Weights = Mapping[str, Tensor]
MGN_HEADS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
"""In the order in which MGN joins their vectors."""


class _Ibn(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._half = channels // 2
        self.IN = nn.InstanceNorm2d(self._half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self._half)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        first, second = x_NCHW[:, : self._half], x_NCHW[:, self._half :]
        return torch.cat([self.IN(first), self.BN(second)], dim=1)


class _Weighed(nn.Module):
    """A block's last batch norm with squeeze-and-excitation behind it."""

    def __init__(self, norm: nn.Module, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = norm
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        normed: Tensor = self.norm(x_NCHW)
        gate_NC: Tensor = self.fc(normed.mean(dim=(2, 3)))
        return normed * gate_NC[:, :, None, None]


class _NonLocal(nn.Module):
    """Dot-product attention over the map, added to it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, inner, 1)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        height, width = x_NCHW.shape[2:]
        g_NLC = self.g(x_NCHW).flatten(2).transpose(1, 2)
        theta_NLC = self.theta(x_NCHW).flatten(2).transpose(1, 2)
        phi_NCL = self.phi(x_NCHW).flatten(2)
        mixed_NLC = (theta_NLC @ phi_NCL / (height * width)) @ g_NLC
        mixed_NCHW = mixed_NLC.transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = x_NCHW + self.W(mixed_NCHW)
        return out


def _count(weights: Weights, pattern: str) -> int:
    """How many different numbers a pattern's group takes among the names."""
    return len({found[1] for name in weights if (found := re.match(pattern, name))})


def resnet_of(weights: Weights, last_stride: int) -> ResNet | None:
    """fast-reid's ResNet with random weights, ``None`` where these are of another backbone.

    Args:
        weights: of the backbone: ``conv1.weight``, ``layer1.0.conv1.weight`` and so on.
        last_stride: of the last stage.
    """
    blocks = [_count(weights, rf"layer{k}\.(\d+)\.") for k in (1, 2, 3, 4)]
    if not all(blocks) or "conv1.weight" not in weights or "layer1.0.conv2.weight" not in weights:
        return None
    deep = "layer1.0.conv3.weight" in weights
    resnet = ResNet(Bottleneck if deep else BasicBlock, blocks)
    resnet.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    resnet.fc = nn.Identity()
    for k in (1, 2, 3, 4):
        stage = resnet.get_submodule(f"layer{k}")
        for number, block in enumerate(stage.children()):
            prefix = f"layer{k}.{number}."
            if f"{prefix}bn1.IN.weight" in weights:
                block.add_module("bn1", _Ibn(_channels(block, "bn1")))
            if (hidden := weights.get(f"{prefix}se.fc.0.weight")) is not None:
                last = "bn3" if deep else "bn2"
                channels, norm = _channels(block, last), block.get_submodule(last)
                block.add_module(last, _Weighed(norm, channels, hidden.shape[0]))
    if last_stride == 1:
        flatten_last_stage(resnet)
    return resnet


def flatten_last_stage(resnet: nn.Module) -> None:
    """Make the last stage of a ResNet keep the size of its map, in place."""
    first = next(resnet.get_submodule("layer4").children())
    for module in first.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _channels(block: nn.Module, name: str) -> int:
    norm = block.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm.num_features


def plain_block_names(weights: Weights) -> dict[str, Tensor]:
    """Names of fast-reid's blocks as :func:`resnet_of` has them: the gate inside its norm."""
    deep = any(re.search(r"layer1\.0\.conv3\.weight$", name) for name in weights)
    gated = any(".se.fc." in name for name in weights)
    last = "bn3" if deep else "bn2"
    plain = {}
    for name, value in weights.items():
        new = name
        if gated:
            new = re.sub(rf"\.{last}\.(?=\w+$)", f".{last}.norm.", new)
            new = new.replace(".se.fc.", f".{last}.fc.")
        plain[new] = value
    return plain


class FastReidBackbone(nn.Module):
    """A ResNet with non-local blocks behind the last blocks of its stages.

    Args:
        resnet: of :func:`resnet_of`.
        weights: tell how many non-local blocks there are.
    """

    def __init__(self, resnet: ResNet, weights: Weights) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, resnet.get_submodule(name))
        for k in (1, 2, 3, 4):
            count = _count(weights, rf"NL_{k}\.(\d+)\.")
            shapes = [weights[f"NL_{k}.{n}.g.weight"].shape for n in range(count)]
            blocks = nn.ModuleList(_NonLocal(inside, inner) for inner, inside, *_ in shapes)
            if count:
                self.add_module(f"NL_{k}", blocks)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB -> the last map."""
        x: Tensor = self.get_submodule("bn1")(self.get_submodule("conv1")(x_N3HW))
        x = self.get_submodule("maxpool")(self.get_submodule("relu")(x))
        for k in (1, 2, 3, 4):
            blocks = list(self.get_submodule(f"layer{k}").children())
            extra = list(getattr(self, f"NL_{k}", ()))
            for number, block in enumerate(blocks):
                x = block(x)
                behind = number - (len(blocks) - len(extra))
                if behind >= 0:
                    x = extra[behind](x)
        return x


def head_of(weights: Weights, prefix: str) -> ReidHead | None:
    """The head whose weights begin with a prefix, ``None`` where it is none of fast-reid's.

    A reduction is a convolution of 1x1 there, and a linear layer here.
    """
    reduce = weights.get(f"{prefix}bottleneck.0.weight")
    if reduce is None:
        return None
    gem = f"{prefix}pool_layer.p" in weights
    pool = GeneralizedMean() if gem else pooling("avg")
    if reduce.ndim != 4:
        return ReidHead(pool, reduce.shape[0], neck=True)
    neck = f"{prefix}bottleneck.1.weight" in weights
    return ReidHead(pool, reduce.shape[1], features=reduce.shape[0], neck=neck)


def head_names(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """A head's weights under the names of :class:`~sa_training.architectures.heads.ReidHead`."""
    reduce = weights[f"{prefix}bottleneck.0.weight"]
    found: dict[str, Tensor] = {}
    norm = f"{prefix}bottleneck.0."
    if reduce.ndim == 4:
        found["reduce.weight"] = reduce.flatten(1)
        norm = f"{prefix}bottleneck.1."
    for name, value in weights.items():
        if name.startswith(norm) and (reduce.ndim != 4 or norm != f"{prefix}bottleneck.0."):
            found[f"neck.{name.removeprefix(norm)}"] = value
    if (power := weights.get(f"{prefix}pool_layer.p")) is not None:
        found["pool.p"] = power
    return found


class Mgn(nn.Module):
    """Multiple granularities: three branches behind the first block of stage 3, eight heads.

    Args:
        resnet: of :func:`resnet_of`, of which the branches take copies.
        heads: by the names of :data:`MGN_HEADS`.
    """

    def __init__(self, resnet: ResNet, heads: Mapping[str, ReidHead]) -> None:
        super().__init__()
        first, *rest = resnet.layer3.children()
        self.backbone = nn.Sequential(
            *(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool),
            *(resnet.layer1, resnet.layer2, first),
        )
        for name in ("b1", "b2", "b3"):
            branch = nn.Sequential(nn.Sequential(*rest), resnet.layer4)
            self.add_module(name, copy.deepcopy(branch))
        for name in MGN_HEADS:
            self.add_module(f"{name}_head", heads[name])

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB -> (N, D): the eight vectors joined."""
        x = self.backbone(x_N3HW)
        maps = {name: self.get_submodule(name)(x) for name in ("b1", "b2", "b3")}
        maps["b21"], maps["b22"] = maps["b2"].chunk(2, dim=2)
        maps["b31"], maps["b32"], maps["b33"] = maps["b3"].chunk(3, dim=2)
        vectors = [self.get_submodule(f"{name}_head")(maps[name]) for name in MGN_HEADS]
        return torch.cat(vectors, dim=1)


MGN_PLACES = {
    "backbone.0.": "conv1.",
    "backbone.1.": "bn1.",
    "backbone.4.": "layer1.",
    "backbone.5.": "layer2.",
    "backbone.6.": "layer3.0.",
    "b1.1.": "layer4.",
}
"""Where the parts of MGN's trunk and of its first branch stood in the ResNet they were cut from."""


def mgn_resnet_weights(weights: Weights) -> dict[str, Tensor]:
    """MGN's trunk and first branch under a ResNet's names."""
    found = {}
    for name, value in weights.items():
        for place, plain in MGN_PLACES.items():
            if name.startswith(place):
                found[plain + name.removeprefix(place)] = value
        if block := re.match(r"b1\.0\.(\d+)\.", name):
            found[f"layer3.{int(block[1]) + 1}." + name[block.end() :]] = value
    return found
