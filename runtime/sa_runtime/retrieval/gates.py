"""Limits that figures must keep: ``mAP>=70``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sa_runtime.errors import GateError, bad_value
from sa_runtime.retrieval.bootstrap import RANKS
from sa_runtime.retrieval.evaluation import RetrievalReport

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FIGURES = {
    "map": "mAP",
    "minp": "mINP",
    **{name: f"rank{k}" for k in RANKS for name in (f"rank{k}", f"rank-{k}", f"r{k}")},
}
_GATE = re.compile(r"\s*([\w-]+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)?)\s*%?\s*")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit of one figure.

    Attributes:
        figure: ``mAP``, ``mINP``, ``rank1``, ``rank5`` or ``rank10``.
        comparator: how the figure must stand to the limit.
        percent: the limit.
    """

    figure: str
    comparator: str
    percent: float

    def __str__(self) -> str:
        return f"{self.figure}{self.comparator}{self.percent:g}"


def parse_gate(text: str) -> Gate:
    """Read a gate as it is written on the command line, in percent.

    Raises:
        InputError: another form, an unknown figure, or a limit above 100.

    >>> str(parse_gate("mAP >= 70 %")), parse_gate("rank-1>85").figure
    ('mAP>=70', 'rank1')
    """
    found = _GATE.fullmatch(text)
    if found is None or found[1].lower() not in _FIGURES:
        names = ", ".join(dict.fromkeys(_FIGURES.values()))
        raise bad_value(
            "gate", text, f"expected a figure and a limit in percent, as mAP>=70; figures: {names}"
        )
    if float(found[3]) > 100:
        raise bad_value("gate", text, "its limit is in percent; expected 0 to 100")
    return Gate(figure=_FIGURES[found[1].lower()], comparator=found[2], percent=float(found[3]))


def check_gates(reports: Sequence[RetrievalReport], gates: Sequence[Gate]) -> None:
    """Hold every figure against every gate.

    Raises:
        GateError: one or more that do not hold; the message names each with its figure.
    """
    broken = []
    for report in reports:
        figures = report.figures()
        for gate in gates:
            value = 100 * figures[gate.figure]
            if not _HOLDS[gate.comparator](value, gate.percent):
                broken.append(
                    f"{report.name} on {report.dataset}: {gate.figure} {value:.2f} %, expected "
                    f"{gate}"
                )
    if broken:
        raise GateError("; ".join(broken))
