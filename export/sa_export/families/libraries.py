"""torchvision's and timm's architectures, without their classifiers, and a user's own function."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from sa_export.families.base import (
    HEIGHT,
    WIDTH,
    Network,
    Wanted,
    Weights,
    filled,
    listed,
    split_off,
)
from sa_export.families.torchreid import resnet_name
from sa_export.preprocessing import PRESETS, Preprocessing
from sa_runtime.errors import CheckpointError, InputError, bad_value
from sa_runtime.system.extras import require
from sa_training.architectures.fastreid import flatten_last_stage

TORCHVISION, TIMM = "torchvision/", "timm/"


def torchvision_names() -> list[str]:
    """Names of torchvision's classification networks."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def recognise(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """A ResNet with torchvision's own classifier; ``None`` for other weights."""
    name = resnet_name(weights)
    if name is None or "fc.weight" not in weights:
        return None
    return torchvision_network(name, weights, path, wanted)


def torchvision_network(name: str, weights: Weights, path: Path, wanted: Wanted) -> Network:
    """One of torchvision's networks without its last linear layer.

    Raises:
        InputError: an unknown name.
        CheckpointError: weights of another network.
    """
    if name not in torchvision_names():
        raise bad_value("arch", f"{TORCHVISION}{name}", "torchvision has no network of that name")
    module: nn.Module = torchvision.models.get_model(name, weights=None)
    last = _last_linear(module)
    features = module.get_submodule(last)
    assert isinstance(features, nn.Linear)
    _replace(module, last, nn.Identity())
    notes = []
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        if wanted.last_stride == 1:
            flatten_last_stage(module)
        elif wanted.last_stride is None:
            notes = ["last stride 2, as torchvision has it; re-ID networks often have 1"]
    own, classifier = split_off(weights, rf"{last}\.")
    return Network(
        family="torchvision",
        arch=name,
        module=filled(module, own, source=str(path), arch=f"torchvision's {name}"),
        height=wanted.height or HEIGHT,
        width=wanted.width or WIDTH,
        preprocessing=PRESETS["imagenet"],
        embedding=f"{features.in_features} numbers before the last linear layer ({last})",
        left_out=tuple(classifier),
        classes=_rows(classifier),
        notes=tuple(notes),
    )


def timm_network(name: str, weights: Weights, path: Path, wanted: Wanted) -> Network:
    """One of timm's networks without its classifier.

    Raises:
        InputError: an unknown name, or a size that the position embedding is not of.
        CheckpointError: weights of another network.
        MissingPackageError: timm is not installed.
    """
    timm = require("timm", extra="timm", purpose=f"architecture {TIMM}{name}")
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:6])
        advice = f"; it has {close} ..." if close else ""
        raise bad_value("arch", f"{TIMM}{name}", f"timm has no network of that name{advice}")
    height, width = _timm_size(name, weights, wanted, timm)
    options: dict[str, Any] = {"img_size": (height, width)} if "pos_embed" in weights else {}
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    named = config.get("classifier") or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    pattern = "|".join(rf"{head}\." for head in heads) or r"(?!)"
    own, classifier = split_off(weights, pattern)
    kept = {k: v for k, v in classifier.items() if k in module.state_dict()}
    return Network(
        family="timm",
        arch=name,
        module=filled(module, own | kept, source=str(path), arch=f"timm's {name}"),
        height=height,
        width=width,
        preprocessing=Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"])),
        embedding=f"{getattr(module, 'num_features', '?')} numbers before the classifier",
        left_out=tuple(k for k in classifier if k not in kept),
        classes=_rows(classifier),
    )


def _timm_size(name: str, weights: Weights, wanted: Wanted, timm: Any) -> tuple[int, int]:
    """Height and width of the input; those of a position embedding where there is one."""
    positions, patch = weights.get("pos_embed"), weights.get("patch_embed.proj.weight")
    if positions is None or patch is None or positions.ndim != 3:
        return wanted.height or HEIGHT, wanted.width or WIDTH
    prefix = sum(weights[k].shape[1] for k in ("cls_token", "reg_token") if k in weights)
    step = patch.shape[-1]
    tokens = positions.shape[1]
    for extra in (prefix, 0):
        grids = [
            (rows, (tokens - extra) // rows)
            for rows in range(1, tokens)
            if (tokens - extra) % rows == 0
        ]
        sizes = [(rows * step, columns * step) for rows, columns in grids]
        if wanted.height and wanted.width:
            if (wanted.height, wanted.width) in sizes:
                return wanted.height, wanted.width
            continue
        side = math.isqrt(tokens - extra)
        likely = [(HEIGHT, WIDTH), (384, 128), (side * step, side * step)]
        for size in likely:
            if size in sizes:
                return size
    if wanted.height and wanted.width:
        raise bad_value(
            "height",
            wanted.height,
            f"the position embedding has {tokens} places, which {wanted.height}x{wanted.width} "
            f"pixels in squares of {step} do not give",
        )
    raise InputError(
        f"{name}: the position embedding has {tokens} places; give `height` and `width`"
    )


def factory_network(spec: str, weights: Weights, path: Path, wanted: Wanted) -> Network:
    """What a user's function makes, with the weights in it.

    The function may take ``num_classes``, ``pretrained``, ``weights`` and ``loss``; it is called
    with the rows of the file's classifier, ``False``, ``None`` and ``softmax``. Its network gives
    vectors in evaluation mode. Weights that they do not depend on may be missing, or of another
    shape.

    Raises:
        InputError: no such function, or one that cannot be called so.
        CheckpointError: weights that the vectors depend on are missing.
    """
    module = _called(spec, _rows(weights))
    own = module.state_dict()
    fitting = {k: v.float() for k, v in weights.items() if k in own and v.shape == own[k].shape}
    missing = [k for k, v in own.items() if k not in fitting and v.is_floating_point()]
    if not fitting:
        raise CheckpointError(
            f"{path}: none of its weights is of `factory={spec!r}`, which has "
            f"{listed(list(own))}; the file has {listed(list(weights))}"
        )
    # What is missing is no number: a vector that depends on it is none either.
    nothing = {k: torch.full_like(own[k], torch.nan) for k in missing}
    module.load_state_dict(fitting | nothing, strict=False)
    module.eval()
    height, width = wanted.height or HEIGHT, wanted.width or WIDTH
    try:
        with torch.inference_mode():
            vectors = _vectors(module(torch.zeros(1, 3, height, width)), spec)
    except (RuntimeError, AssertionError, ValueError, TypeError) as exc:
        raise InputError(
            f"`factory={spec!r}`: its network fails on images (1, 3, {height}, {width}): {exc}"
        ) from exc
    if not torch.isfinite(vectors).all():
        raise CheckpointError(
            f"{path}: lacks {listed(missing)}, on which the vectors of `factory={spec!r}` depend"
        )
    module.load_state_dict({k: torch.zeros_like(v) for k, v in nothing.items()}, strict=False)
    left = tuple(k for k in weights if k not in fitting)
    return Network(
        family="a factory",
        arch=spec,
        module=_FirstOutput(module, spec),
        height=height,
        width=width,
        preprocessing=PRESETS["imagenet"],
        embedding="what the factory's network gives in evaluation mode",
        left_out=left,
        notes=(f"left out: {listed(left)}",) if left else (),
    )


class _FirstOutput(nn.Module):
    """A network whose vectors are the first of what it gives."""

    def __init__(self, network: nn.Module, spec: str) -> None:
        super().__init__()
        self.network = network
        self._spec = spec

    def forward(self, x_N3HW: Tensor) -> Tensor:
        return _vectors(self.network(x_N3HW), self._spec)


def _vectors(output: object, spec: str) -> Tensor:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise InputError(
            f"`factory={spec!r}`: its network gives {type(output).__name__}, expected a tensor"
        )
    return output


def _called(spec: str, classes: int) -> nn.Module:
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise bad_value("factory", spec, "expected package.module:function")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as `python -m` finds modules beside the user
        sys.path.insert(0, folder)
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module_name), function_name)
        parameters = inspect.signature(function).parameters
        given: dict[str, Any] = {
            "num_classes": classes or 1000,
            "pretrained": False,
            "weights": None,
        }
        given["loss"] = "softmax"  # torchreid's networks ask for it
        made = function(**{k: v for k, v in given.items() if k in parameters})
    except (ImportError, AttributeError, TypeError) as exc:
        raise bad_value("factory", spec, f"cannot be called: {exc}") from exc
    if not isinstance(made, nn.Module):
        raise bad_value("factory", spec, f"gives {type(made).__name__}, expected a torch.nn.Module")
    return made


def _last_linear(module: nn.Module) -> str:
    names = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    if not names:
        raise InputError("the architecture has no linear layer at its end")
    return str(names[-1])


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, new)


def _rows(weights: Weights) -> int:
    """Rows of the last matrix, a classifier's."""
    return next((v.shape[0] for k, v in reversed(list(weights.items())) if v.ndim == 2), 0)
