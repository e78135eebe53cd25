"""OSNet with its IBN and AIN variants, under the names that torchreid's weights have.

Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification" (arXiv 1905.00953), and
"Learning Generalisable Omni-Scale Representations" (arXiv 1910.06827) for AIN. Attribute names
follow torchreid's checkpoints, so that those load as they are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sa_runtime.errors import bad_value, check_fields

Variant = Literal["plain", "ibn", "ain"]
STREAMS = 4
WIDTHS = {"x1_0": 64, "x0_75": 48, "x0_5": 32, "x0_25": 16}
"""Channels of the stem by the name's ending; the stages have 4, 6 and 8 times as many."""
_AIN_INSIDE = ((True, True), (False, True), (True, False))
"""Which blocks of the three stages of AIN normalise instances inside the residual."""
NAMES = tuple(
    f"osnet_{prefix}{width}" for prefix in ("", "ibn_", "ain_") for width in WIDTHS
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class OSNetConfig:
    """Architecture of an :class:`OSNet`.

    Attributes:
        variant: where instances are normalised: nowhere, ``ibn`` or ``ain``.
        width: channels of the stem; 64 is x1.0.
        features: numbers of the embedding.
    """

    variant: Variant = "plain"
    width: int = 64
    features: int = 512

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        rules = (
            ("variant", self.variant in ("plain", "ibn", "ain"), "plain, ibn or ain"),
            ("width", self.width >= 4 and self.width % 4 == 0, "a multiple of 4"),
            ("features", self.features >= 1, "at least 1"),
        )
        check_fields(self, rules, prefix="OSNet ")

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Of the stem and of the three stages.

        >>> OSNetConfig(width=16).channels
        (16, 64, 96, 128)
        """
        return self.width, 4 * self.width, 6 * self.width, 8 * self.width

    @property
    def name(self) -> str:
        """As torchreid calls it.

        >>> OSNetConfig(variant="ain", width=48).name
        'osnet_ain_x0_75'
        """
        width = next((k for k, v in WIDTHS.items() if v == self.width), f"width{self.width}")
        return f"osnet_{'' if self.variant == 'plain' else self.variant + '_'}{width}"


def osnet_config(name: str) -> OSNetConfig:
    """The architecture of one of torchreid's names.

    Raises:
        InputError: an unknown name.

    >>> osnet_config("osnet_ain_x0_5")
    OSNetConfig(variant='ain', width=32, features=512)
    """
    if name not in NAMES:
        raise bad_value("arch", name, f"expected one of {', '.join(NAMES)}")
    found = re.fullmatch(r"osnet_(?:(ibn|ain)_)?(x\d_\d+)", name)
    assert found is not None
    variant: Variant = {"ibn": "ibn", "ain": "ain"}.get(found[1], "plain")  # type: ignore[assignment]
    return OSNetConfig(variant=variant, width=WIDTHS[found[2]])


def osnet_config_of(weights: Mapping[str, Tensor]) -> OSNetConfig | None:
    """The architecture that some weights are of, ``None`` where they are of no OSNet."""
    stem, last = weights.get("conv1.conv.weight"), weights.get("fc.0.weight")
    if stem is None or last is None or "conv5.conv.weight" not in weights:
        return None
    variant: Variant = "plain"
    if "conv2.0.conv2.0.layers.0.conv1.weight" in weights:
        variant = "ain"
    elif "conv2.0.conv2a.conv1.weight" not in weights:
        return None
    elif "conv2.0.IN.weight" in weights:
        variant = "ibn"
    if stem.shape[0] < 4 or stem.shape[0] % 4:
        return None
    return OSNetConfig(variant=variant, width=stem.shape[0], features=last.shape[0])


class _ConvNorm(nn.Module):
    """Convolution, batch or instance norm, ReLU."""

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        relu: bool = True,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.bn: nn.Module = nn.Identity()
        if norm != "none":
            self.bn = (
                nn.BatchNorm2d(outside)
                if norm == "batch"
                else nn.InstanceNorm2d(outside, affine=True)
            )
        self.relu: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x: Tensor = self.relu(self.bn(self.conv(x_NCHW)))
        return x


class _LightConv3x3(nn.Module):
    """A pointwise convolution, a depthwise one of 3x3, batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        normed_NCHW: Tensor = self.bn(self.conv2(self.conv1(x_NCHW)))
        return F.relu(normed_NCHW)


class _Stream(nn.Module):
    """Light convolutions one after another, as AIN names them."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_LightConv3x3(channels) for _ in range(depth)))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x: Tensor = self.layers(x_NCHW)
        return x


class _ChannelGate(nn.Module):
    """Weighs channels by what is seen of them in the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // 16), 1)
        self.fc2 = nn.Conv2d(max(1, channels // 16), channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled_NC11 = F.adaptive_avg_pool2d(x_NCHW, 1)
        gate_NC11: Tensor = self.fc2(F.relu(self.fc1(pooled_NC11)))
        return x_NCHW * gate_NC11.sigmoid()


class _OSBlock(nn.Module):
    """Four streams of growing depth, summed under one gate, with a residual."""

    def __init__(
        self, inside: int, outside: int, *, variant: Variant, instance: bool = False
    ) -> None:
        super().__init__()
        middle = outside // 4
        self.conv1 = _ConvNorm(inside, middle)
        self._streams: tuple[str, ...] = ()
        if variant == "ain":
            self.conv2 = nn.ModuleList(_Stream(middle, depth + 1) for depth in range(STREAMS))
        else:
            self._streams = tuple(f"conv2{letter}" for letter in "abcd")
            self.conv2a = _LightConv3x3(middle)
            for depth, name in enumerate(self._streams[1:], start=2):
                stack = nn.Sequential(*(_LightConv3x3(middle) for _ in range(depth)))
                self.add_module(name, stack)
        self.gate = _ChannelGate(middle)
        inner = instance and variant == "ain"
        self.conv3 = _ConvNorm(middle, outside, relu=False, norm="none" if inner else "batch")
        self.downsample = None if inside == outside else _ConvNorm(inside, outside, relu=False)
        self.IN = nn.InstanceNorm2d(outside, affine=True) if instance else None
        self._inner = inner

    def forward(self, x_NCHW: Tensor) -> Tensor:
        reduced_NCHW = self.conv1(x_NCHW)
        streams = self.conv2 if not self._streams else map(self.get_submodule, self._streams)
        first, *others = (self.gate(stream(reduced_NCHW)) for stream in streams)
        for other in others:
            first = first + other
        residual = self.conv3(first)
        if self.IN is not None and self._inner:
            residual = self.IN(residual)
        out = residual + (x_NCHW if self.downsample is None else self.downsample(x_NCHW))
        if self.IN is not None and not self._inner:
            out = self.IN(out)
        return F.relu(out)


class OSNet(nn.Module):
    """OSNet without a classifier.

    Args:
        config: its architecture.

    Attributes:
        channels: of the four maps of :meth:`stages`.
    """

    def __init__(self, config: OSNetConfig) -> None:
        super().__init__()
        self.config = config
        stem, *stages = config.channels
        variant = config.variant
        norm: Literal["batch", "instance"] = "batch" if variant == "plain" else "instance"
        self.conv1 = _ConvNorm(3, stem, 7, stride=2, norm=norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inside = stem
        for number, outside in enumerate(stages):
            instances = _AIN_INSIDE[number] if variant == "ain" else (variant == "ibn",) * 2
            if variant == "ibn" and number > 0:
                instances = (False, False)
            blocks: list[nn.Module] = [
                _OSBlock(width, outside, variant=variant, instance=instance)
                for width, instance in zip((inside, outside), instances, strict=True)
            ]
            if number < 2:
                pool = nn.Sequential(_ConvNorm(outside, outside), nn.AvgPool2d(2, stride=2))
                if variant == "ain":
                    self.add_module(f"pool{number + 2}", pool)
                else:
                    blocks.append(pool)
            self.add_module(f"conv{number + 2}", nn.Sequential(*blocks))
            inside = outside
        self.conv5 = _ConvNorm(inside, inside)
        self.fc = nn.Sequential(
            nn.Linear(inside, config.features), nn.BatchNorm1d(config.features), nn.ReLU()
        )
        self.channels = (stages[0], stages[1], stages[2], stages[2])

    def stages(self, x_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) normalised RGB -> maps of strides 4, 8, 16 and 16."""
        x = self.maxpool(self.conv1(x_N3HW))
        maps = []
        for number in (2, 3, 4):
            stage = self.get_submodule(f"conv{number}")
            assert isinstance(stage, nn.Sequential)
            for block in stage[:2]:
                x = block(x)
            maps.append(x)
            if number < 4:
                name = f"pool{number}" if self.config.variant == "ain" else f"conv{number}.2"
                x = self.get_submodule(name)(x)
        return maps[0], maps[1], maps[2], self.conv5(x)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB -> (N, features), not of unit length."""
        pooled_NC = self.stages(x_N3HW)[-1].mean(dim=(2, 3))
        embedding: Tensor = self.fc(pooled_NC)
        return embedding
