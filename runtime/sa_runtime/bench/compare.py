"""Is a build slower than an earlier one? A gate that tells a slower build from a busier machine.

Speeds are divided by the machine's own pace, measured just before and after each round, and the
medians over the rounds are compared. A series fails where even the favourable end of its error bar
lies beyond the allowed slowdown; where the bar is wider than what is asked to be seen, it says so.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from sa_runtime.bench.result import BenchResult, Series
from sa_runtime.errors import InputError, RegressionError, bad_value

WIDTH = 4.0
"""Half of the error bar in standard errors: neighbouring rounds are not independent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One contender at one batch size, against the base.

    Attributes:
        name: of the contender.
        batch: crops in a batch.
        streams: batches in flight.
        change: of the speed, relative to the machine's pace: -0.1 is ten percent slower.
        low, high: error bar of it.
        verdict: ``slower``, ``faster``, ``same``, or ``noisy`` where the error bar is too wide to
            see the allowed slowdown.
    """

    name: str
    batch: int
    streams: int
    change: float
    low: float
    high: float
    verdict: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All series of two results that have the same contender, batch and streams.

    Attributes:
        fail_above: allowed slowdown, 0.05 for five percent.
        changes: of the common series.
        missing: series of the base that the new result lacks.
        other_machine: what differs between the two environments, empty where nothing does.
    """

    fail_above: float
    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    other_machine: str

    @property
    def slower(self) -> tuple[Change, ...]:
        """The series that fail."""
        return tuple(change for change in self.changes if change.verdict == "slower")

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the comparison, for people."""
        found = []
        if self.other_machine:
            found.append(f"base and result differ in more than the build: {self.other_machine}")
        if self.missing:
            found.append(f"in the base only: {', '.join(self.missing)}")
        noisy = [change for change in self.changes if change.verdict == "noisy"]
        if noisy:
            found.append(
                f"too noisy to see {100 * self.fail_above:g} % in {len(noisy)} of "
                f"{len(self.changes)} series: measure longer (`duration`) or on a quieter machine"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def compare(base: BenchResult, new: BenchResult, *, fail_above: float) -> Comparison:
    """Compare a result with an earlier one.

    Args:
        base: the earlier one.
        new: the later one.
        fail_above: allowed slowdown as a fraction.

    Raises:
        InputError: nothing in common, or a fraction outside 0 to 1.
    """
    if not 0 < fail_above < 1:
        raise bad_value("fail_above", fail_above, "expected more than 0 and below 1 (100%)")
    old, current = _by_key(base), _by_key(new)
    common = [key for key in current if key in old]
    if not common:
        raise InputError(
            "the base and this result have no contender and batch size in common: "
            f"{_names(*old)} and {_names(*current)}; measure with the base's options"
        )
    return Comparison(
        fail_above=fail_above,
        changes=tuple(_change(key, old[key], current[key], fail_above) for key in common),
        missing=tuple(
            f"{name} at batch {batch}" for name, batch, _ in old if (name, batch, _) not in current
        ),
        other_machine=_difference(base, new),
    )


Key = tuple[str, int, int]


def _by_key(result: BenchResult) -> dict[Key, Series]:
    return {
        (contender.name, series.batch, series.streams): series
        for contender in result.contenders
        for series in contender.series
    }


def _names(*keys: Key) -> str:
    return ", ".join(
        f"{name} at batch {batch}" + (f" x{streams}" if streams > 1 else "")
        for name, batch, streams in keys
    )


def _change(key: Key, old: Series, new: Series, fail_above: float) -> Change:
    (before, before_error), (after, after_error) = _log_speed(old), _log_speed(new)
    middle = after - before
    width = WIDTH * math.hypot(before_error, after_error)
    low, high = math.expm1(middle - width), math.expm1(middle + width)
    if high < -fail_above:
        verdict = "slower"
    elif low > fail_above:
        verdict = "faster"
    else:
        verdict = "noisy" if math.expm1(width) > fail_above else "same"
    name, batch, streams = key
    return Change(
        name=name,
        batch=batch,
        streams=streams,
        change=math.expm1(middle),
        low=low,
        high=high,
        verdict=verdict,
    )


def _log_speed(series: Series) -> tuple[float, float]:
    """Logarithm of the median speed over pace, and its standard error."""
    logs = np.log(np.array(series.rounds_images_per_s) / np.array(series.rounds_pace_tflops))
    middle = float(np.median(logs))
    # 1.4826 MAD estimates the standard deviation; the median's error is 1.2533 of the mean's.
    deviation = 1.4826 * float(np.median(np.abs(logs - middle)))
    return middle, 1.2533 * deviation / math.sqrt(len(logs))


def _difference(base: BenchResult, new: BenchResult) -> str:
    """What differs of processor, cores and packages, as one line."""
    parts = [
        f"{field} {base.environment.get(field)} and {new.environment.get(field)}"
        for field in ("processor", "cores", "governor")
        if base.environment.get(field) != new.environment.get(field)
    ]
    old, current = (r.environment.get("versions", {}) for r in (base, new))
    parts += [
        f"{name} {old.get(name, 'absent')} and {current.get(name, 'absent')}"
        for name in sorted({*old, *current})
        if old.get(name) != current.get(name)
    ]
    return "; ".join(parts)


def parse_percent(text: str) -> float:
    """A fraction from ``5%``, ``5`` or ``0.05``: numbers below 1 without a sign are fractions.

    Raises:
        InputError: no number.

    >>> parse_percent("5%"), parse_percent("5"), parse_percent("0.05")
    (0.05, 0.05, 0.05)
    """
    number = text.strip().removesuffix("%")
    try:
        value = float(number)
    except ValueError as exc:
        raise bad_value("fail_above", text, "expected a percentage such as 5%") from exc
    return value if value < 1 and not text.strip().endswith("%") else value / 100


def require_no_slower(comparison: Comparison) -> None:
    """Refuse a result with a series that is slower than allowed.

    Raises:
        RegressionError: names those series.
    """
    if comparison.slower:
        found = "; ".join(
            f"{_names((c.name, c.batch, c.streams))} by {-100 * c.change:.1f} % "
            f"(at least {-100 * c.high:.1f} %)"
            for c in comparison.slower
        )
        raise RegressionError(
            f"slower than the base: {found}; allowed are {100 * comparison.fail_above:g} %"
        )
