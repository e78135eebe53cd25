"""What a family makes of weights, and how weights get into a network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sa_export.preprocessing import Preprocessing
from sa_runtime.errors import CheckpointError

Weights = Mapping[str, Tensor]
HEIGHT, WIDTH = 256, 128
"""What re-ID frameworks train at where nothing else is said."""
_SHOWN = 3
_COUNTERS = re.compile(r"num_batches_tracked$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user says of a checkpoint's network; ``None`` where nothing is said.

    Attributes:
        height, width: of its input in pixels.
        last_stride: of a ResNet's last stage, which no weight tells.
    """

    height: int | None = None
    width: int | None = None
    last_stride: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network with foreign weights in it.

    Attributes:
        family: who trains such networks, for people.
        arch: name of the architecture.
        module: (N, 3, H, W) normalised float32 -> (N, D), in evaluation mode.
        height, width: of its input.
        preprocessing: what the family does to its crops.
        stated: what the file itself says of that; ``None`` where it says nothing.
        embedding: what the vectors are, for people.
        left_out: names of weights that the embedding does not depend on, such as classifiers.
        classes: identities that it was trained to tell apart, 0 where that is not known.
        notes: what was taken for granted.
        index: which of several outputs the vectors are; ``None`` where it has one.
    """

    family: str
    arch: str
    module: nn.Module
    height: int
    width: int
    preprocessing: Preprocessing
    stated: Preprocessing | None = None
    embedding: str
    left_out: tuple[str, ...] = ()
    classes: int = 0
    notes: tuple[str, ...] = ()
    index: int | None = None

    def vectors(self, x_N3HW: Tensor) -> object:
        """What the network gives for images, the chosen one of several outputs."""
        output = self.module(x_N3HW)
        return output if self.index is None else output[self.index]


def filled(module: nn.Module, weights: Weights, *, source: str, arch: str) -> nn.Module:
    """Put weights into a network, all of them.

    Args:
        module: of the architecture.
        weights: by the network's own names.
        source: of the weights, for messages.
        arch: name of the architecture, for messages.

    Raises:
        CheckpointError: a weight is missing, unknown, or of another shape.
    """
    own = {k: v for k, v in module.state_dict().items() if not _COUNTERS.search(k)}
    given = {k: v for k, v in weights.items() if not _COUNTERS.search(k)}
    shapes = [
        f"{k} {tuple(given[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    faults = (
        ("lacks", [k for k in own if k not in given]),
        ("has besides", [k for k in given if k not in own]),
        ("has other shapes:", shapes),
    )
    for what, names in faults:
        if names:
            raise CheckpointError(
                f"{source}: {what} {listed(names)}; its weights are not those of {arch}. Name "
                "another architecture (`arch`), or a function that makes its network (`factory`)"
            )
    with torch.no_grad():
        module.load_state_dict({k: v.float() for k, v in given.items()}, strict=False)
    return module.eval()


def listed(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def split_off(weights: Weights, pattern: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights whose names do not match a pattern, and those that do."""
    found = re.compile(pattern)
    others = {k: v for k, v in weights.items() if not found.match(k)}
    return others, {k: v for k, v in weights.items() if k not in others}


def classes_of(weights: Weights) -> int:
    """Rows of a classifier's matrix among some weights, 0 where there is none."""
    return next((v.shape[0] for v in weights.values() if v.ndim == 2), 0)
