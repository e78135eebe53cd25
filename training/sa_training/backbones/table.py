"""Backbones by name: ResNets, networks of torchvision and timm, and what others make.

A name is looked for in this order: the ResNets of :data:`BACKBONES`; names that installed packages
register (entry points of the group ``sa_deploy.backbones``); OSNet (``osnet_x1_0``); torchvision;
``timm:NAME``, or a name that only timm knows; ``package.module:function``.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torchvision
from torch import nn

from sa_runtime.errors import InputError, SaDeployError, bad_value
from sa_runtime.system import extensions
from sa_training.architectures.osnet import NAMES as OSNETS
from sa_training.backbones.base import STAGES, Backbone, Facts
from sa_training.backbones.probe import Probe
from sa_training.backbones.resnets import RESNETS, ResNetBackbone
from sa_training.backbones.wrapped import (
    TIMM,
    TORCHVISION_FAMILIES,
    FactoryBackbone,
    OSNetBackbone,
    TimmBackbone,
    torchvision_steps,
)

BACKBONES: dict[str, Callable[[], nn.Module]] = RESNETS
"""The ResNets, whose names the authors' recipes use."""
TRUSTED_VARIABLE = "SA_DEPLOY_FACTORIES"
"""Factories, separated by commas, that a checkpoint may name."""
_OTHER_RESNETS = ("resnext", "wide_resnet")
"""How torchvision's other networks of the ResNets' form begin."""
_used: set[str] = set()
"""Factories that this process has been told to use."""


def stride(name: str) -> int:
    """Input pixels a row of the last map of a ResNet stands for.

    >>> stride("resnet50"), stride("resnet18-32")
    (16, 4)
    """
    return 4 if name.endswith("-32") else 16


def check_name(name: str) -> None:
    """Refuse a name that stands for no backbone.

    Raises:
        InputError: an unknown name, or a factory that cannot be imported.
        MissingPackageError: timm is not installed.
    """
    _builder(name)
    if is_factory(name):
        _used.add(name)


def check_trusted(name: str) -> None:
    """Refuse a factory that only a file names: to call it is to run code that nobody asked for.

    Raises:
        InputError: the factory was not named by the user.
    """
    trusted = os.environ.get(TRUSTED_VARIABLE, "").split(",")
    if is_factory(name) and name not in _used and name not in trusted:
        raise InputError(
            f"its backbone is made by {name}, code outside sa-deploy, which is not run because a "
            f"file names it; set {TRUSTED_VARIABLE}={name} if you trust it, or register it under a "
            f"name (entry points, {extensions.BACKBONES})"
        )


def plain_name(name: str) -> str:
    """A name as this module writes it, of one that ``sa-deploy adopt`` takes.

    >>> plain_name("timm/vit_small_patch16_224"), plain_name("torchvision/convnext_tiny")
    ('timm:vit_small_patch16_224', 'convnext_tiny')
    """
    if name.startswith("timm/"):
        return f"{TIMM}{name.removeprefix('timm/')}"
    return name.removeprefix("torchvision/")


def is_factory(name: str) -> bool:
    """Whether a name is ``package.module:function``."""
    return ":" in name and not name.startswith(TIMM)


def in_timm(name: str) -> bool:
    """Whether a name stands for one of timm's networks, and for nothing before it."""
    if name in (*RESNETS, *OSNETS) or name in extensions.registered(extensions.BACKBONES):
        return False
    return name.startswith(TIMM) or not (
        is_factory(name) or _in_torchvision(name) or not _in_timm(name)
    )


def backbone(
    name: str,
    height: int = 256,
    width: int = 128,
    *,
    positive: tuple[bool, bool] = (True, True),
) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: as this module's text says.
        height: of its input.
        width: of its input.
        positive: whether the maps of the stages, and the last one, must not be negative.

    Raises:
        InputError: an unknown name, or a network that gives no maps.
        MissingPackageError: timm is not installed.
    """
    return _builder(name)(height, width, positive)


def facts(name: str, height: int, width: int) -> Facts:
    """What a backbone gives for inputs of a size.

    Raises:
        InputError: as :func:`backbone`; or an input too small for it.
    """
    if name in RESNETS or name.startswith(_OTHER_RESNETS):
        rows, columns = (math.ceil(size / stride(name)) for size in (height, width))
        return Facts(staged=True, height=rows, width=columns)
    return _measured(name, height, width)


@cache
def _measured(name: str, height: int, width: int) -> Facts:
    try:
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    maps = _maps(name, height, width)
            except SaDeployError:
                raise
            except Exception:  # code of others that cannot do without numbers
                maps = _maps(name, height, width)
    except (RuntimeError, AssertionError) as exc:
        said = " ".join(str(exc).split())[:120]
        raise InputError(
            f"backbone {name}: gives no map of a {height}x{width} input ({said}); pass another "
            "`height` and `width`"
        ) from exc
    return Facts(staged=len(maps) == STAGES, height=maps[-1].shape[2], width=maps[-1].shape[3])


def _maps(name: str, height: int, width: int) -> Any:
    return Probe(backbone(name, height, width), height, width).output


def _builder(name: str) -> Callable[[int, int, tuple[bool, bool]], Backbone]:
    if name in RESNETS:
        return lambda *_: ResNetBackbone(RESNETS[name]())
    if (point := extensions.registered(extensions.BACKBONES).get(name)) is not None:
        return _of_factory(name, extensions.loaded(point))
    if name in OSNETS:
        return lambda *arguments: OSNetBackbone(name, *arguments)
    if _in_torchvision(name):
        if name.startswith(_OTHER_RESNETS):
            return lambda *_: ResNetBackbone(torchvision.models.get_model(name, weights=None))
        return torchvision_steps(name)
    if is_factory(name):
        return _of_factory(name, _imported(name))
    if name.startswith(TIMM) or _in_timm(name):
        _check_timm(name)
        return lambda *arguments: TimmBackbone(name, *arguments)
    raise bad_value("backbone", name, f"expected {_choices()}")


def _in_torchvision(name: str) -> bool:
    return name.startswith((*TORCHVISION_FAMILIES, *_OTHER_RESNETS)) and (
        name in torchvision.models.list_models(module=torchvision.models)
    )


def _in_timm(name: str) -> bool:
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name))


def _check_timm(name: str) -> None:
    from sa_runtime.system.extras import require

    timm = require("timm", extra="timm", purpose=f"the backbone {name}")
    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = ", ".join(timm.list_models(f"*{plain.split('_')[0]}*")[:5])
        raise bad_value("backbone", name, f"timm has none of that name; near: {near or 'none'}")


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as exc:
        raise bad_value(
            "backbone",
            name,
            f"cannot be imported ({exc}); expected package.module:function of an installed package "
            "or of a file in the current folder (PYTHONPATH=.)",
        ) from exc


def _of_factory(name: str, function: Any) -> Callable[[int, int, tuple[bool, bool]], Backbone]:
    def build(height: int, width: int, positive: tuple[bool, bool]) -> Backbone:
        if not callable(function):
            raise bad_value("backbone", name, "is no function; expected one that makes a network")
        known = inspect.signature(function).parameters
        given = {key: v for key, v in (("height", height), ("width", width)) if key in known}
        body = function(**given)
        if not isinstance(body, nn.Module):
            raise bad_value(
                "backbone", name, f"returns {type(body).__name__}; expected a torch.nn.Module"
            )
        return FactoryBackbone(name, body, height, width, positive)

    return build


def _choices() -> str:
    others = ", ".join(extensions.registered(extensions.BACKBONES))
    own = f"{others} (of installed packages); " if others else ""
    return (
        f"one of {', '.join(RESNETS)}; {own}osnet_x1_0 "
        "and its kin; a name of torchvision, such as mobilenet_v2; timm:NAME; or "
        "package.module:function"
    )
