"""torchreid: OSNet and ResNets; BoxMOT's weights are the same under other file names."""

from __future__ import annotations

from pathlib import Path

import torchvision
from torch import nn

from sa_export.families.base import (
    HEIGHT,
    WIDTH,
    Network,
    Wanted,
    Weights,
    classes_of,
    filled,
    split_off,
)
from sa_export.preprocessing import PRESETS
from sa_runtime.errors import CheckpointError
from sa_training.architectures.fastreid import flatten_last_stage
from sa_training.architectures.heads import AverageMap
from sa_training.architectures.osnet import OSNet, osnet_config_of

_CLASSIFIER = r"classifier\."


def recognise(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """OSNet, or a ResNet with torchreid's names; ``None`` for other weights."""
    return _osnet(weights, path, wanted) or _resnet(weights, path, wanted)


def _osnet(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    config = osnet_config_of(weights)
    if config is None:
        return None
    own, classifier = split_off(weights, _CLASSIFIER)
    return Network(
        family="torchreid",
        arch=config.name,
        module=filled(OSNet(config), own, source=str(path), arch=config.name),
        height=wanted.height or HEIGHT,
        width=wanted.width or WIDTH,
        preprocessing=PRESETS["torchreid"],
        embedding=f"{config.features} numbers behind the last linear layer, batch norm and ReLU",
        left_out=tuple(classifier),
        classes=classes_of(classifier),
    )


def resnet_name(weights: Weights) -> str | None:
    """torchvision's name of the ResNet whose trunk some weights hold; ``None`` for none."""
    if "conv1.weight" not in weights or weights["conv1.weight"].shape[2:] != (7, 7):
        return None
    third = {name.split(".")[1] for name in weights if name.startswith("layer3.")}
    deep = "layer1.0.conv3.weight" in weights
    names = {(2, False): "18", (6, False): "34", (6, True): "50", (23, True): "101"}
    names[(36, True)] = "152"
    depth = names.get((len(third), deep))
    inner = weights.get("layer1.0.conv2.weight")
    if depth is None or inner is None or inner.shape[1] != 64 or ".IN." in "".join(weights):
        return None
    return f"resnet{depth}"


class _TorchreidResNet(nn.Module):
    """A ResNet's trunk, the mean of its map, and torchreid's linear layer where there is one."""

    def __init__(self, name: str, features: int | None, *, last_stride: int) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(name, weights=None)
        if last_stride == 1:
            flatten_last_stage(resnet)
        channels = resnet.fc.in_features
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(part, getattr(resnet, part))
        self.pool = AverageMap()
        self.fc: nn.Module = nn.Identity()
        if features is not None:
            self.fc = nn.Sequential(
                nn.Linear(channels, features), nn.BatchNorm1d(features), nn.ReLU()
            )

    def forward(self, x):  # type: ignore[no-untyped-def]
        for part in self.children():
            x = part(x)
        return x


def _resnet(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """``resnet50`` has the last stride 2 and a classifier, ``resnet50_fc512`` 1 and a layer."""
    name = resnet_name(weights)
    reduced = weights.get("fc.0.weight")
    if name is None or (reduced is None and "classifier.weight" not in weights):
        return None
    if "fc.weight" in weights:
        raise CheckpointError(f"{path}: has both fc and classifier; name its `factory`")
    own, classifier = split_off(weights, _CLASSIFIER)
    stride = wanted.last_stride or (2 if reduced is None else 1)
    features = None if reduced is None else reduced.shape[0]
    arch = name if features is None else f"{name}_fc{features}"
    module = _TorchreidResNet(name, features, last_stride=stride)
    notes = () if wanted.last_stride else (f"last stride {stride}, as torchreid's {arch} has it",)
    return Network(
        family="torchreid",
        arch=arch,
        module=filled(module, own, source=str(path), arch=arch),
        height=wanted.height or HEIGHT,
        width=wanted.width or WIDTH,
        preprocessing=PRESETS["torchreid"],
        embedding="the mean of the last map" if features is None else f"{features} numbers",
        left_out=tuple(classifier),
        classes=classes_of(classifier),
        notes=notes,
    )
