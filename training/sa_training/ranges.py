"""From histograms of activations to the ranges they are quantised over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError, bad_value

Calibrator = Literal["min-max", "percentile", "mse", "entropy"]
"""How a clipping threshold is chosen.

``min-max``: the largest value seen. ``percentile``: what 99.99 % of the values stay below. ``mse``:
the threshold of least squared error, clipping and rounding together. ``entropy``: the threshold
whose quantised distribution has the least Kullback-Leibler divergence (Migacz, "8-bit inference
with TensorRT", 2017).
"""
BINS = 2048
PERCENTILE = 99.99
_CANDIDATES = 120


class Histogram:
    """Counts of the values of one tensor; zeros apart, because quantisation keeps them exact.

    Attributes:
        width: of a bin; it doubles when a value lies beyond the last one.
        positive, negative: (BINS,) counts of values above and of magnitudes below zero.
        low, high: smallest and largest value seen, zero included.
    """

    def __init__(self) -> None:
        self.width = 0.0
        self.positive = np.zeros(BINS, np.int64)
        self.negative = np.zeros(BINS, np.int64)
        self.low = 0.0
        self.high = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Count the values of an array of any shape.

        Raises:
            InputError: one is not finite.
        """
        low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
        if not np.isfinite([low, high]).all():
            raise InputError("an activation is not finite on the calibration crops")
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(high, -low)
        if peak == 0:
            return
        if self.width == 0:
            self.width = 1.25 * peak / BINS
        while peak >= self.width * BINS:
            self.width *= 2
            for counts in (self.positive, self.negative):
                counts[:] = np.concatenate(
                    [counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)]
                )
        self.positive += self._counts(values[values > 0])
        if low < 0:
            self.negative += self._counts(-values[values < 0])

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """(BINS,) counts of the magnitudes."""
        return self.positive + self.negative

    def _counts(self, magnitudes: NDArray[np.floating]) -> NDArray[np.int64]:
        index = np.minimum((magnitudes / self.width).astype(np.int64), BINS - 1)
        return np.bincount(index.ravel(), minlength=BINS)


def value_range(histogram: Histogram, calibrator: Calibrator, levels: int) -> tuple[float, float]:
    """Smallest and largest value to represent; zero lies between them.

    Args:
        histogram: of the tensor.
        calibrator: how outliers are clipped.
        levels: steps from zero to the threshold, 127 or 255.

    Raises:
        InputError: an unknown calibrator.
    """
    if calibrator not in _THRESHOLDS:
        choices = ", ".join(get_args(Calibrator))
        raise bad_value("calibrator", calibrator, f"unknown; choose from {choices}")
    if histogram.width == 0:
        return 0.0, 0.0
    threshold = _THRESHOLDS[calibrator](histogram, levels)
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _min_max(histogram: Histogram, levels: int) -> float:
    return max(histogram.high, -histogram.low)


def _percentile(histogram: Histogram, levels: int) -> float:
    seen = np.cumsum(histogram.magnitudes)
    index = int(np.searchsorted(seen, seen[-1] * PERCENTILE / 100))
    return (index + 1) * histogram.width


def _mse(histogram: Histogram, levels: int) -> float:
    """Rounding errs by ``step**2 / 12`` on average, clipping by the square of what is cut off."""
    counts = histogram.magnitudes
    values = (np.arange(BINS) + 0.5) * histogram.width
    top = max(histogram.high, -histogram.low)
    thresholds = top * np.linspace(0.05, 1.0, _CANDIDATES)
    inside = values[None, :] <= thresholds[:, None]
    rounding = (counts * inside).sum(axis=1) * (thresholds / levels) ** 2 / 12
    excess = np.where(inside, 0.0, values[None, :] - thresholds[:, None])
    clipping = (counts * excess**2).sum(axis=1)
    return float(thresholds[np.argmin(rounding + clipping)])


def _entropy(histogram: Histogram, levels: int) -> float:
    counts = histogram.magnitudes.astype(np.float64)
    last = int(np.flatnonzero(counts)[-1]) + 1
    steps = levels + 1
    if last <= steps:
        return last * histogram.width
    best, threshold = np.inf, last
    for stop in np.unique(np.linspace(steps, last, _CANDIDATES).astype(int)).tolist():
        reference = counts[:stop].copy()
        reference[-1] += counts[stop:].sum()
        divergence = _divergence(reference, _merged(counts[:stop], steps))
        if divergence < best:
            best, threshold = divergence, stop
    return threshold * histogram.width


def _merged(counts: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Counts as ``steps`` levels keep them: each level's total spread over its non-empty bins."""
    level = np.arange(len(counts)) * steps // len(counts)
    filled = (counts > 0).astype(np.float64)
    totals = np.bincount(level, weights=counts, minlength=steps)
    bins = np.bincount(level, weights=filled, minlength=steps)
    mean = np.divide(totals, bins, out=np.zeros(steps), where=bins > 0)
    return mean[level] * filled


def _divergence(reference: NDArray[np.float64], merged: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence; bins that only the reference fills cost as a tiny count."""
    p = reference / reference.sum()
    q = np.maximum(merged / max(merged.sum(), 1.0), 1e-9)
    filled = p > 0
    return float(np.sum(p[filled] * np.log(p[filled] / q[filled])))


_THRESHOLDS: dict[Calibrator, Callable[[Histogram, int], float]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
