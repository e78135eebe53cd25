"""Which network foreign weights are of: told from the tensors, or named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from sa_export.families.base import Network, Wanted, Weights, listed
from sa_export.families.libraries import (
    TIMM,
    TORCHVISION,
    factory_network,
    timm_network,
    torchvision_names,
    torchvision_network,
)
from sa_export.foreign_weights import ForeignWeights
from sa_runtime.errors import CheckpointError, bad_value
from sa_training.architectures.osnet import NAMES as OSNETS

Recognise = Callable[[Weights, Path, Wanted], Network | None]
FAMILIES: dict[str, str] = {
    "torchreid": "sa_export.families.torchreid:recognise",
    "fastreid": "sa_export.families.fastreid:recognise",
    "strong-baseline": "sa_export.families.fastreid:recognise_baseline",
    "transreid": "sa_export.families.transformers:recognise_transreid",
    "clip-reid": "sa_export.families.transformers:recognise_clip",
    "torchvision": "sa_export.families.libraries:recognise",
}
"""Family -> "module:function" that knows its weights by their names, in the order of asking."""


def network_of(
    found: ForeignWeights,
    wanted: Wanted,
    *,
    arch: str | None = None,
    factory: str | None = None,
) -> Network:
    """The network of a checkpoint, with its weights in it.

    Args:
        found: the checkpoint.
        wanted: what the user says of the input.
        arch: a family of :data:`FAMILIES`, one of torchreid's OSNet names, ``torchvision/NAME``,
            ``timm/NAME`` (or ``timm:NAME``), or what ``factory`` takes; told from the tensors where
            it is not given.
        factory: ``package.module:function`` that makes the network.

    Raises:
        CheckpointError: weights of no known family, or not those of what was named.
        InputError: an unknown name.
        MissingPackageError: timm is needed and not installed.
    """
    weights, path = found.weights, found.path
    if factory is not None:
        return factory_network(factory, weights, path, wanted)
    if arch is None:
        return _recognised(found, wanted)
    return _named(arch, weights, path, wanted)


def _named(named: str, weights: Weights, path: Path, wanted: Wanted) -> Network:
    for library in (TIMM, TORCHVISION):
        if named.startswith(prefix := library.replace("/", ":")):  # as `train` writes it
            named = library + named.removeprefix(prefix)
    if ":" in named:
        return factory_network(named, weights, path, wanted)
    if named.startswith(TIMM):
        return timm_network(named.removeprefix(TIMM), weights, path, wanted)
    if named.startswith(TORCHVISION) or named in torchvision_names():
        return torchvision_network(named.removeprefix(TORCHVISION), weights, path, wanted)
    family = "torchreid" if named in OSNETS else named
    if family not in FAMILIES:
        raise bad_value(
            "arch",
            named,
            f"unknown; expected {', '.join(FAMILIES)}, one of torchreid's OSNet names, "
            "torchvision/NAME, timm/NAME or package.module:function",
        )
    network = _asked(family, weights, path, wanted)
    if network is None or (named in OSNETS and network.arch != named):
        came = f"they are of {network.arch}" if network else f"it has {listed(list(weights))}"
        raise CheckpointError(f"{path}: its weights are not those of `arch={named!r}`; {came}")
    return network


def _asked(family: str, weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    module, _, function = FAMILIES[family].partition(":")
    recognise: Recognise = getattr(importlib.import_module(module), function)
    return recognise(weights, path, wanted)


def _recognised(found: ForeignWeights, wanted: Wanted) -> Network:
    for family in FAMILIES:
        network = _asked(family, found.weights, found.path, wanted)
        if network is not None:
            return network
    # The name that timm's training script writes beside the weights.
    named = found.said.get("arch")
    if isinstance(named, str):
        return timm_network(named, found.weights, found.path, wanted)
    raise CheckpointError(
        f"{found.path}: its weights ({listed(list(found.weights))}) are of no family that is "
        f"known by its names; {_advice(found.weights)}"
    )


def _advice(weights: Weights) -> str:
    width = weights["cls_token"].shape[-1] if "cls_token" in weights else 0
    if width and "pos_embed" in weights:
        size = {192: "tiny", 384: "small", 768: "base", 1024: "large"}.get(width, "...")
        patch = weights["patch_embed.proj.weight"].shape[-1]
        return (
            f"they look like timm's vision transformer: name it, for example "
            f"`arch=timm/vit_{size}_patch{patch}_224`"
        )
    if "conv_stem.weight" in weights:
        return "they look like timm's: name the architecture, as `arch=timm/mobilenetv2_100`"
    if "features.0.0.weight" in weights:
        return (
            "they look like torchvision's: name the architecture, as "
            "`arch=torchvision/convnext_tiny`"
        )
    return (
        "name an architecture (`arch=torchvision/NAME`, `arch=timm/NAME`) or a function that "
        "makes the network (`factory=package.module:function`)"
    )
