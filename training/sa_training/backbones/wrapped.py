"""Networks of torchvision, of timm and of a user, as backbones with their own weights' names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from sa_runtime.errors import InputError
from sa_runtime.system.extras import require
from sa_training.architectures.osnet import OSNet, osnet_config
from sa_training.backbones.base import STAGES, Backbone
from sa_training.backbones.probe import Probe, map_stride, set_last_stride

TORCHVISION_FAMILIES = (
    *("convnext_", "densenet", "efficientnet_", "mnasnet", "mobilenet_", "regnet_"),
    *("shufflenet_", "vgg"),
)
"""How the names of torchvision's networks begin that end in a map and are taken from there."""
TIMM = "timm:"
"""What may stand before the name of one of timm's networks."""
_STRIDES = (4, 8, 16)
"""Strides of the maps of stages 1 to 3."""


class Wrapped(Backbone):
    """Maps of a network that is run in one way or another by :meth:`maps`.

    Maps may hold negative values, which attention cannot weigh by: those pass a ReLU first.

    Args:
        height, width: of the input that it is measured with.
        positive: whether the stages' maps, and the last one, must not be negative.
        last_stride: let the network end with a stride of 16 instead of 32, where it can.
    """

    def __init__(
        self, height: int, width: int, positive: tuple[bool, bool], *, last_stride: bool
    ) -> None:
        super().__init__()
        self._height, self._width = height, width
        self._positive, self._last_stride = positive, last_stride
        self._rectified: tuple[bool, ...] = ()

    @abstractmethod
    def maps(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """The maps as the network gives them."""

    def forward(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) normalised RGB -> the maps, the last one last."""
        maps = self.maps(x_N3HW)
        return tuple(
            F.relu(x_NCHW) if rectified else x_NCHW
            for x_NCHW, rectified in zip(maps, self._rectified, strict=True)
        )

    def measure(self) -> None:
        """Set the last stride, and find out about the maps."""
        if self._last_stride:
            probe = Probe(self, self._height, self._width, self.maps)
            set_last_stride(self, probe, self._height, self._width)
        probe = Probe(self, self._height, self._width, self.maps)
        maps: tuple[Tensor, ...] = probe.output
        self.channels = tuple(map_NCHW.shape[1] for map_NCHW in maps)
        stages, last = self._positive
        wanted = (*(stages for _ in maps[:-1]), last)
        self._rectified = tuple(
            must and not probe.positive(map_NCHW)
            for map_NCHW, must in zip(maps, wanted, strict=True)
        )


class StepsBackbone(Wrapped):
    """A network of torchvision, whose ``features`` (or their like) are run one after the other.

    Names of weights are torchvision's. Stages end where the map is about to be halved.
    """

    def __init__(
        self, network: nn.Module, height: int, width: int, positive: tuple[bool, bool]
    ) -> None:
        super().__init__(height, width, positive, last_stride=True)
        steps = _steps_of(network)
        for top in dict.fromkeys(step.partition(".")[0] for step in steps):
            self.add_module(top, network.get_submodule(top))
        self._steps = steps
        self._ends: tuple[int, ...] = (len(steps) - 1,)
        self._ends = self._stage_ends()
        self.measure()

    def maps(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """The maps as the steps give them."""
        found, x = [], x_N3HW
        for number, step in enumerate(self._steps):
            x = self.get_submodule(step)(x)
            if number in self._ends:
                found.append(x)
        return tuple(found)

    def _stage_ends(self) -> tuple[int, ...]:
        """The last step at each stride that deep supervision reads, and the last step."""
        rows: list[int] = []

        def count(x: Tensor) -> Tensor:
            for step in self._steps:
                x = self.get_submodule(step)(x)
                rows.append(map_stride(self._height, x.shape[2]))
            return x

        Probe(self, self._height, self._width, count)
        last = len(rows) - 1
        ends = [max((i for i in range(last) if rows[i] == s), default=None) for s in _STRIDES]
        return (*(i for i in ends if i is not None), last) if None not in ends else (last,)


class TimmBackbone(Wrapped):
    """A network of timm below ``body``, where its weights have timm's names."""

    def __init__(self, name: str, height: int, width: int, positive: tuple[bool, bool]) -> None:
        super().__init__(height, width, positive, last_stride=True)
        self.body: Any = timm_network(name, height, width)
        if not hasattr(self.body, "forward_intermediates"):
            raise InputError(
                f"backbone {name}: this version of timm gives no maps of it; update timm, or make "
                "it by a function of your own, `arch='package.module:function'`"
            )
        self._indices: list[int] = []
        self._indices = self._stages()
        self.measure()

    def maps(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """The maps of the stages and the last one, (N, C, H, W) whatever is inside."""
        if not self._indices:  # without stages: tokens, as a map
            (last_NCHW,) = self.body.forward_intermediates(
                x_N3HW, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )
            return (last_NCHW,)
        last_NCHW, stages = self.body.forward_intermediates(
            x_N3HW, indices=self._indices, output_fmt="NCHW"
        )
        channels = self.body.num_features
        if last_NCHW.shape[1] != channels == last_NCHW.shape[3]:
            last_NCHW = last_NCHW.permute(0, 3, 1, 2)
        return (*stages, last_NCHW)

    def _stages(self) -> list[int]:
        """Positions of the maps of strides 4, 8 and 16 in the network's own list."""
        strides = [one["reduction"] for one in self.body.feature_info]
        if not all(stride in strides for stride in _STRIDES):
            return []
        return [max(i for i, one in enumerate(strides) if one == s) for s in _STRIDES]

    def own_name(self, name: str) -> str:
        """Below ``body``."""
        return f"body.{name}"

    def resized(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights whose table of positions has the size of this network's input."""
        key = self.own_name("pos_embed")
        own, given = self.state_dict().get(key), weights.get(key)
        if own is None or given is None or own.shape == given.shape:
            return weights
        layers = require("timm.layers", extra="timm", purpose="a table of positions")
        grid = list(self.body.patch_embed.grid_size)
        prefix = getattr(self.body, "num_prefix_tokens", 1)
        table = layers.resample_abs_pos_embed(given, grid, num_prefix_tokens=prefix)
        return {**weights, key: table}


class OSNetBackbone(Wrapped):
    """An OSNet below ``body``, where its weights have torchreid's names."""

    def __init__(self, name: str, height: int, width: int, positive: tuple[bool, bool]) -> None:
        super().__init__(height, width, positive, last_stride=False)
        self.body = OSNet(osnet_config(name))
        del self.body.fc
        self.measure()

    def maps(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """The maps of its stages."""
        return self.body.stages(x_N3HW)

    def own_name(self, name: str) -> str:
        """Below ``body``."""
        return f"body.{name}"


class FactoryBackbone(Wrapped):
    """What a function of the user's gives, below ``body``; its strides are left alone.

    Its forward takes (N, 3, H, W) and returns the last map, or the maps of stages 1 to 3 and the
    last one.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        height: int,
        width: int,
        positive: tuple[bool, bool],
    ) -> None:
        super().__init__(height, width, positive, last_stride=False)
        self.body = body
        self._check(name, Probe(body, height, width).output)
        self.measure()

    def maps(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """What it returns, as a tuple."""
        given = self.body(x_N3HW)
        return (given,) if isinstance(given, Tensor) else tuple(given)

    def own_name(self, name: str) -> str:
        """Below ``body``."""
        return f"body.{name}"

    @staticmethod
    def _check(name: str, given: Any) -> None:
        maps = (given,) if isinstance(given, Tensor) else given
        if (
            not isinstance(maps, tuple | list)
            or len(maps) not in (1, STAGES)
            or not all(isinstance(one, Tensor) and one.ndim == 4 for one in maps)
        ):
            kinds = maps if isinstance(maps, tuple | list) else (maps,)
            shapes = [tuple(one.shape) if isinstance(one, Tensor) else type(one) for one in kinds]
            raise InputError(
                f"backbone {name}: its network returns {shapes}; expected the last map, (N, C, H, "
                "W), or a tuple of four: those of stages 1 to 3 and the last one"
            )


def torchvision_steps(name: str) -> Callable[[int, int, tuple[bool, bool]], Backbone]:
    """What builds a network of torchvision's other families."""

    def build(height: int, width: int, positive: tuple[bool, bool]) -> Backbone:
        network = torchvision.models.get_model(name, weights=None)
        return StepsBackbone(network, height, width, positive)

    return build


def timm_network(name: str, height: int, width: int, *, pretrained: bool = False) -> nn.Module:
    """A network of timm without a classifier, for inputs of a size.

    Args:
        name: with ``timm:`` or without.
        height: of the input.
        width: of the input.
        pretrained: with the weights that timm downloads for it; random ones otherwise.

    Raises:
        MissingPackageError: timm is not installed.
    """
    timm = require("timm", extra="timm", purpose=f"the backbone {name}")
    plain = name.removeprefix(TIMM)
    options = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        network: nn.Module = timm.create_model(plain, img_size=(height, width), **options)
    except TypeError:  # convolutions take any size
        network = timm.create_model(plain, **options)
    return network


def _steps_of(network: nn.Module) -> tuple[str, ...]:
    for features in ("features", "layers"):
        found = getattr(network, features, None)
        if isinstance(found, nn.Sequential):
            names = [name for name, _ in found.named_children()]
            if "norm5" in names:  # a DenseNet, whose last ReLU is a function
                found.add_module("relu5", nn.ReLU(inplace=True))
                names.append("relu5")
            return tuple(f"{features}.{name}" for name in names)
    trunk = getattr(network, "trunk_output", None)
    if isinstance(trunk, nn.Sequential):
        return ("stem", *(f"trunk_output.{name}" for name, _ in trunk.named_children()))
    return ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
