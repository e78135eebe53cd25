"""Work in processes of their own: alone, beside a busy process, and two at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Start = Callable[[str], "subprocess.Popen[str]"]
"""Starts a process with a setting of that name, which prints its rate and ends."""


def in_turns(settings: Iterable[str], start: Start, rounds: int) -> dict[str, Any]:
    """Rates of each setting in the three surroundings; rounds alternate between the settings.

    Returns:
        ``medians`` and ``share_of_alone`` by setting and surroundings, and all ``rounds``.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(rounds):
        for name, rates in found.items():
            rates.append(_one_round(start, name))
    medians = {
        name: {place: float(np.median([rate[place] for rate in rates])) for place in rates[0]}
        for name, rates in found.items()
    }
    shares = {
        name: {place: rate / rates["alone"] for place, rate in rates.items()}
        for name, rates in medians.items()
    }
    return {"medians": medians, "share_of_alone": shares, "rounds": found}


def _one_round(start: Start, name: str) -> dict[str, float]:
    found = {"alone": _mean_rate([start(name)])}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found["beside a busy process"] = _mean_rate([start(name)])
    finally:
        busy.kill()
        busy.wait()
    found["two at once, each"] = _mean_rate([start(name) for _ in range(2)])
    return found


def _mean_rate(processes: list[subprocess.Popen[str]]) -> float:
    return float(np.mean([float(process.communicate()[0]) for process in processes]))
