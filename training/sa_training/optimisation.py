"""What moves the weights: parameter groups, learning rates, their moving average, precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sa_runtime.errors import bad_value
from sa_runtime.system.environment import cores
from sa_training.network import SANetwork
from sa_training.recipes import Recipe

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def optimizer_of(network: SANetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """Two groups, backbone and the rest, each with its ``base_lr`` (the authors' 1 to 10)."""
    base = list(network.base.parameters())
    inside = {id(parameter) for parameter in base}
    head = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [
        {"params": base, "base_lr": recipe.backbone_lr},
        {"params": head, "base_lr": recipe.lr},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )


def lr_factor(recipe: Recipe, step: float, steps: int, epoch_steps: float) -> float:
    """What the learning rate is multiplied with at a step.

    Args:
        recipe: its schedule.
        step: from 0; between two steps where the schedule is stretched.
        steps: of the whole recipe.
        epoch_steps: of an epoch.

    >>> from sa_training.recipes import sa
    >>> [round(lr_factor(sa(), epoch * 10, 1000, 10), 4) for epoch in (0, 39, 40, 80)]
    [1.0, 1.0, 0.1, 0.01]
    """
    warmup = math.ceil(recipe.warmup * steps)
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    if recipe.schedule == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    return float(0.1 ** (step // epoch_steps // recipe.step_size))


class MovingAverage:
    """An exponential moving average of a network's weights and batch-norm statistics.

    Early on it forgets faster, ``min(decay, (1 + step) / (10 + step))``, to leave the random
    weights behind.

    Args:
        network: starts the average.
        decay: how much of the average a step keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the average of a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)


def resolve_device(name: str, local: int = 0) -> torch.device:
    """``auto`` is CUDA where there is one (GPU ``local`` of several), the CPU otherwise.

    Raises:
        InputError: a device that torch does not know or this machine does not have.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda", local) if cuda else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise bad_value("device", name, "expected auto, cpu, cuda or cuda:N") from exc
    if device.type == "cuda" and not cuda:
        raise bad_value("device", name, "no CUDA device here; pass `device='cpu'` or 'auto'")
    return device


def decoding_processes(wanted: int | None, device: str) -> int:
    """Processes that decode images beside the training.

    Args:
        wanted: as asked for; at most one a core is given. ``None`` gives none where the training
            runs on the processor, whose cores they would take, and up to 8 where it runs on a GPU.
        device: of the training: ``auto``, or a torch device.

    Raises:
        InputError: a device that torch does not know or this machine does not have.
    """
    if wanted is not None:
        return min(wanted, cores())
    return 0 if resolve_device(device).type == "cpu" else min(8, max(1, cores() - 1))


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type convolutions are computed in; ``None`` for float32.

    ``auto`` takes bf16 where the hardware has it.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise bad_value("precision", precision, f"unknown; choose from {choices}")
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is done by the hardware (CUDA, or a CPU with AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_flag("avx512_bf16")


def _cpu_flag(flag: str) -> bool:
    try:
        return flag in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
