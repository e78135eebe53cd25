"""ImageNet weights for a backbone: torchvision's, timm's, a file, or none."""

from __future__ import annotations

import logging
import pickle
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor

from sa_runtime.errors import CheckpointError, MissingFileError
from sa_runtime.system.extras import require
from sa_training.backbones import BACKBONES, in_timm
from sa_training.backbones.wrapped import TimmBackbone, timm_network
from sa_training.network import SANetwork
from sa_training.recipes import Recipe
from sa_training.weight_names import backbone_weights
from sa_training.weights import is_state_dict, plain_names

_log = logging.getLogger(__name__)


def initialise(network: SANetwork, recipe: Recipe, *, resumed: bool) -> SANetwork:
    """Give a new network the weights that its recipe starts from.

    Args:
        network: as built, with random weights.
        recipe: ``pretrained`` is ``imagenet``, ``none`` or a file.
        resumed: a checkpoint follows; nothing is looked for.

    Raises:
        CheckpointError: weights that cannot be had (the message says where to put them) or do not
            fit.
    """
    if recipe.pretrained == "none" or resumed:
        return network
    weights, source = (
        imagenet_weights(network.config.backbone, network.config.height, network.config.width)
        if recipe.pretrained == "imagenet"
        else _from_file(Path(recipe.pretrained))
    )
    expected = network.base.state_dict()
    given = backbone_weights(weights, expected, network.base.own_name)
    if isinstance(network.base, TimmBackbone):
        given = network.base.resized(given)
    wrong = [
        f"{key} {tuple(given[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(set(given) & set(expected))
        if given[key].shape != expected[key].shape
    ]
    missing = sorted(
        key for key in set(expected) - set(given) if not key.endswith("num_batches_tracked")
    )
    unknown = sorted(set(given) - set(expected))
    for what, found in (("lacks", missing), ("has unknown", unknown), ("has", wrong)):
        if found:
            raise CheckpointError(
                f"{source}: {what} {'; '.join(found[:3])}; expected weights of "
                f"{network.config.backbone} under the names of torchvision, timm or torchreid "
                "(pass another backbone or another file)"
            )
    _log.info("the backbone %s starts from %s", network.config.backbone, source)
    network.base.load_state_dict(given, strict=False)
    network.initialise(pretrained=True)
    return network


def imagenet_file(backbone: str) -> Path | None:
    """Where torchvision's weights of a backbone lie once downloaded; ``None`` if it has none."""
    url = _url(backbone)
    if url is None:
        return None
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def imagenet_weights(
    backbone: str, height: int = 256, width: int = 128
) -> tuple[dict[str, Tensor], str]:
    """ImageNet weights and where they came from: torchvision's ``IMAGENET1K_V1``, or timm's.

    Args:
        backbone: its name.
        height: of the input, where a network of timm depends on it.
        width: likewise.

    Raises:
        CheckpointError: there are none for it, or they are neither on disk nor to be had.
    """
    if in_timm(backbone):
        return _timm_weights(backbone, height, width)
    url, target = _url(backbone), imagenet_file(backbone)
    if url is None or target is None:
        raise CheckpointError(
            f"pretrained='imagenet': torchvision has no weights for {backbone}; pass "
            f"`pretrained='none'`, a file, or {', '.join(b for b in BACKBONES if _url(b))}",
            parameter="pretrained",
            value="imagenet",
        )
    if target.is_file():
        return _from_file(target)
    try:
        with redirect_stdout(sys.stderr):  # torch says there that it downloads
            weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as exc:
        raise CheckpointError(
            f"pretrained='imagenet': cannot download {url} ({exc}); fetch it elsewhere and put it "
            f"at {target}, or pass `pretrained=FILE` or `pretrained='none'`",
            parameter="pretrained",
            value="imagenet",
        ) from exc
    return weights, str(target)


def _timm_weights(backbone: str, height: int, width: int) -> tuple[dict[str, Tensor], str]:
    try:
        network = timm_network(backbone, height, width, pretrained=True)
    except Exception as exc:  # what a hub's client raises is its own affair
        said = " ".join(str(exc).split())[:120]
        raise CheckpointError(
            f"pretrained='imagenet': timm gives no weights for {backbone} ({said}); pass "
            "`pretrained=FILE` with weights fetched elsewhere, or `pretrained='none'`",
            parameter="pretrained",
            value="imagenet",
        ) from exc
    return network.state_dict(), f"timm's weights for {backbone}"


def _url(backbone: str) -> str | None:
    if backbone not in torchvision.models.list_models(module=torchvision.models):
        return None
    weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    url: str = weights.url
    return url


def _from_file(path: Path) -> tuple[dict[str, Tensor], str]:
    if not path.is_file():
        raise MissingFileError(
            f"pretrained={str(path)!r}: no such file; expected imagenet, none or a file of weights",
            path=path,
            parameter="pretrained",
            value=str(path),
        )
    try:
        content = _content(path)
    except (RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as exc:
        raise CheckpointError(
            f"pretrained={str(path)!r}: not a readable file of weights "
            f"({' '.join(str(exc).split())[:120]}); download it again",
            path=path,
            parameter="pretrained",
            value=str(path),
        ) from exc
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not is_state_dict(weights):
        raise CheckpointError(
            f"pretrained={str(path)!r}: holds no state dict of tensors",
            path=path,
            parameter="pretrained",
            value=str(path),
        )
    return plain_names(weights), str(path)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        purpose = f"pretrained={str(path)!r}"
        return require("safetensors.torch", extra="timm", purpose=purpose).load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
