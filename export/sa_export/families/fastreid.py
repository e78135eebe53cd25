"""fast-reid: BoT, AGW and SBS on its ResNets, MGN; Luo's strong baseline, where they came from."""

from __future__ import annotations

import re
from pathlib import Path

import torchvision
from torch import Tensor, nn

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
from sa_export.families.torchreid import resnet_name
from sa_export.preprocessing import PRESETS, Preprocessing
from sa_runtime.errors import CheckpointError
from sa_training.architectures.fastreid import (
    MGN_HEADS,
    FastReidBackbone,
    Mgn,
    flatten_last_stage,
    head_names,
    head_of,
    mgn_resnet_weights,
    plain_block_names,
    resnet_of,
)
from sa_training.architectures.heads import ReidHead, ReidNetwork, pooling

_CLASSIFIER = r"(heads|b\d+_head)\.(weight|classifier\.|cls_layer\.)"


def recognise(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """A network with fast-reid's names; ``None`` for other weights."""
    if not any(name.startswith("backbone.") for name in weights):
        return None
    stated = _stated(weights)
    weights, _ = split_off(weights, r"pixel_(mean|std)$")
    own, classifier = split_off(weights, _CLASSIFIER)
    if any(name.startswith("b1_head.") for name in own):
        arch, module, size = _mgn(own, path, wanted)
    elif any(name.startswith("heads.") for name in own):
        arch, module, size = _baseline(own, path, wanted)
    else:
        return None
    notes = () if wanted.last_stride else ("last stride 1, as fast-reid's configurations have it",)
    return Network(
        family="fast-reid",
        arch=arch,
        module=module,
        height=wanted.height or size,
        width=wanted.width or WIDTH,
        preprocessing=PRESETS["fastreid"],
        stated=stated,
        embedding="behind the neck's batch norm, as fast-reid evaluates",
        left_out=tuple(classifier),
        classes=classes_of(classifier),
        notes=notes,
    )


def _stated(weights: Weights) -> Preprocessing | None:
    """Mean and deviation that older versions of fast-reid kept in the file."""
    mean, std = weights.get("pixel_mean"), weights.get("pixel_std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return None
    said = [tuple(float(x) for x in value.flatten()) for value in (mean, std)]
    return Preprocessing(divisor=1.0, mean=said[0], std=said[1])  # type: ignore[arg-type]


def _trunk(weights: Weights, path: Path, wanted: Wanted) -> tuple[dict[str, Tensor], str]:
    plain = plain_block_names(weights)
    blocks = {name.split(".")[1] for name in plain if name.startswith("layer3.")}
    deep = "layer1.0.conv3.weight" in plain
    depth = {(2, False): "18", (6, False): "34", (6, True): "50", (23, True): "101"}.get(
        (len(blocks), deep)
    )
    if depth is None:
        kind = ", ".join(sorted({name.split(".")[0] for name in weights})[:4])
        raise CheckpointError(
            f"{path}: a backbone of fast-reid ({kind} ...) that is none of its ResNets; name a "
            "function that makes the network (`factory`)"
        )
    ibn = "-ibn" if "layer1.0.bn1.IN.weight" in plain else ""
    gated = "-se" if any(".fc.0.weight" in name for name in plain) else ""
    return plain, f"R{depth}{gated}{ibn}"


def _baseline(own: Weights, path: Path, wanted: Wanted) -> tuple[str, nn.Module, int]:
    heads, trunk = split_off(own, r"backbone\.")
    plain, name = _trunk({k.removeprefix("backbone."): v for k, v in trunk.items()}, path, wanted)
    resnet = resnet_of(plain, wanted.last_stride or 1)
    head = head_of(own, "heads.")
    if resnet is None or head is None:
        raise CheckpointError(
            f"{path}: fast-reid's names, but a head that is not its embedding head; name a "
            "function that makes the network (`factory`)"
        )
    local = any(k.startswith("NL_") for k in plain)
    gem = "heads.pool_layer.p" in own
    kind = {(False, False): "BoT", (True, True): "SBS/AGW"}.get((local, gem), "baseline")
    names = {f"backbone.{k}": v for k, v in plain.items()}
    names |= {f"head.{k}": v for k, v in head_names(heads, "heads.").items()}
    arch = f"{kind} {name}"
    network = ReidNetwork(FastReidBackbone(resnet, plain), head)
    filled(network, names, source=str(path), arch=f"fast-reid's {arch}")
    return arch, network, HEIGHT


def _mgn(own: Weights, path: Path, wanted: Wanted) -> tuple[str, nn.Module, int]:
    plain, name = _trunk(plain_block_names(mgn_resnet_weights(own)), path, wanted)
    resnet = resnet_of(plain, wanted.last_stride or 1)
    found = {head: head_of(own, f"{head}_head.") for head in MGN_HEADS}
    heads = {head: value for head, value in found.items() if isinstance(value, ReidHead)}
    if resnet is None or len(heads) < len(MGN_HEADS):
        raise CheckpointError(f"{path}: not all of MGN's eight heads are there")
    rest, _ = split_off(own, r"b\d+_head\.")
    names = plain_block_names(rest)
    for head in MGN_HEADS:
        prefix = f"{head}_head."
        names |= {f"{prefix}{k}": v for k, v in head_names(own, prefix).items()}
    network = Mgn(resnet, heads)
    filled(network, names, source=str(path), arch=f"fast-reid's MGN {name}")
    return f"MGN {name}", network, 384


def recognise_baseline(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """Luo's strong baseline: a ResNet under ``base.``, a BNNeck named ``bottleneck``."""
    if "bottleneck.weight" not in weights or "base.layer4.0.conv1.weight" not in weights:
        return None
    own, classifier = split_off(weights, r"classifier\.")
    trunk = {k.removeprefix("base."): v for k, v in own.items() if k.startswith("base.")}
    name = resnet_name(trunk)
    if name is None:
        return None
    resnet = torchvision.models.get_model(name, weights=None)
    if (wanted.last_stride or 1) == 1:
        flatten_last_stage(resnet)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    base = nn.Sequential()
    for part in names:
        base.add_module(part, getattr(resnet, part))
    head = ReidHead(pooling("avg"), weights["bottleneck.weight"].shape[0], neck=True)
    fitting = {re.sub(r"^base\.", "backbone.", k): v for k, v in own.items()}
    fitting = {re.sub(r"^bottleneck\.", "head.neck.", k): v for k, v in fitting.items()}
    network = ReidNetwork(base, head)
    return Network(
        family="reid-strong-baseline",
        arch=f"BoT {name}",
        module=filled(network, fitting, source=str(path), arch=f"the strong baseline on {name}"),
        height=wanted.height or HEIGHT,
        width=wanted.width or WIDTH,
        preprocessing=PRESETS["imagenet"],
        embedding="behind the BNNeck",
        left_out=tuple(classifier),
        classes=classes_of(classifier),
        notes=() if wanted.last_stride else ("last stride 1, as the baseline has it",),
    )
