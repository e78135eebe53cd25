"""Inputs that grow while a network is trained: small ones first, the network's own size last.

A schedule is a text, ``96x48:0.4,128x64:0.75``: inputs of 96x48 until 0.4 of the training is done,
of 128x64 until 0.75, then of the network's size. Small inputs cost less, in proportion to their
pixels, and teach most of what large ones do.
"""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from sa_runtime.errors import bad_value

_PHASE = re.compile(r"\s*(\d+)x(\d+)\s*:\s*(\d*\.?\d+)\s*")


class Phase(NamedTuple):
    """Inputs of one size, until a fraction of the training is done."""

    until: float
    height: int
    width: int


@cache
def phases(growing: str, height: int, width: int) -> tuple[Phase, ...]:
    """The phases of a training, the one of the network's own size last.

    Args:
        growing: the schedule; empty for one size throughout.
        height: of the network's input.
        width: of the network's input.

    Raises:
        InputError: no schedule, or one whose fractions do not grow within 0 and 1.

    >>> phases("96x48:0.5", 160, 80)
    (Phase(until=0.5, height=96, width=48), Phase(until=1.0, height=160, width=80))
    """
    found = []
    for text in growing.split(",") if growing.strip() else ():
        match = _PHASE.fullmatch(text)
        if match is None:
            raise bad_value("growing", growing, "expected HEIGHTxWIDTH:UNTIL, joined by commas")
        found.append(Phase(float(match[3]), int(match[1]), int(match[2])))
    ends = [0.0, *(phase.until for phase in found), 1.0]
    if any(a >= b for a, b in itertools.pairwise(ends)):
        rule = "expected fractions of the training between 0 and 1, each above the one before"
        raise bad_value("growing", growing, rule)
    return (*found, Phase(1.0, height, width))


def phase_at(schedule: tuple[Phase, ...], done: float) -> Phase:
    """The phase at a fraction of the training."""
    return next((phase for phase in schedule if done < phase.until), schedule[-1])


def cost_at(schedule: tuple[Phase, ...], done: float) -> float:
    """What a step costs at a fraction of the training, the first one 1: as many pixels more."""
    first, now = schedule[0], phase_at(schedule, done)
    return now.height * now.width / (first.height * first.width)


def mean_cost(schedule: tuple[Phase, ...], done: float) -> float:
    """What a step costs on average from a fraction of the training to its end.

    >>> mean_cost(phases("80x40:0.5", 160, 80), 0.0)
    2.5
    """
    if done >= 1:
        return cost_at(schedule, done)
    total, begin = 0.0, done
    for phase in schedule:
        if phase.until > begin:
            total += (phase.until - begin) * cost_at(schedule, begin)
            begin = phase.until
    return total / (1 - done)


def resized(x_N3HW: Tensor, phase: Phase | None) -> Tensor:
    """A batch at the size of a phase, antialiased; as it is for none."""
    if phase is None or x_N3HW.shape[2:] == (phase.height, phase.width):
        return x_N3HW
    size = [phase.height, phase.width]
    return F.interpolate(x_N3HW, size, mode="bilinear", antialias=True, align_corners=False)
