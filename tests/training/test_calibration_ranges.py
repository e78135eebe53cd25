"""Calibrators against brute force, and histograms that grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_training.ranges import BINS, Histogram, value_range


def histogram(*arrays: NDArray[np.floating]) -> Histogram:
    made = Histogram()
    for array in arrays:
        made.add(np.asarray(array, np.float32))
    return made


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40), min_size=1, max_size=5
    )
)
def test_every_value_is_counted_whatever_the_order_of_magnitudes(
    batches: list[list[float]],
) -> None:
    values = np.concatenate([np.array(batch, np.float32) for batch in batches])
    made = histogram(*(np.array(batch) for batch in batches))
    assert made.positive.sum() == (values > 0).sum()
    assert made.negative.sum() == (values < 0).sum()
    assert (made.low, made.high) == (min(0.0, values.min()), max(0.0, values.max()))
    # A bin's count is that of the values between its borders, up to a value on a border.
    if made.width:
        edges = np.arange(BINS + 1) * made.width
        counted, _ = np.histogram(values[values > 0].astype(np.float64), edges)
        assert np.abs(np.cumsum(counted) - np.cumsum(made.positive)).max() <= 2


def test_min_max_keeps_every_value_and_percentile_drops_outliers() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=200_000))
    values[:5] = 1000.0
    made = histogram(values)
    assert value_range(made, "min-max", 127) == (0.0, 1000.0)
    low, high = value_range(made, "percentile", 127)
    assert low == 0.0
    assert high == pytest.approx(np.percentile(values, 99.99), abs=2 * made.width)


@pytest.mark.parametrize("levels", [127, 255])
def test_mse_is_near_the_best_threshold_of_all(levels: int) -> None:
    values = np.abs(np.random.default_rng(1).standard_t(4, size=50_000))

    def error(threshold: float) -> float:
        step = threshold / levels
        return float(np.mean((np.clip(np.round(values / step), 0, levels) * step - values) ** 2))

    best = min(error(threshold) for threshold in np.linspace(0.5, values.max(), 400))
    _, high = value_range(histogram(values), "mse", levels)
    assert error(high) < 1.1 * best
    assert value_range(histogram(values), "mse", 15)[1] < 0.8 * high


def test_entropy_keeps_the_bulk_and_drops_a_lonely_outlier() -> None:
    values = np.abs(np.random.default_rng(2).normal(size=100_000))
    values[0] = 60.0
    _, high = value_range(histogram(values), "entropy", 127)
    assert 2.5 < high < 20
    flat = np.random.default_rng(3).uniform(0, 8, 100_000)
    assert value_range(histogram(flat), "entropy", 127)[1] == pytest.approx(8, abs=0.5)


def test_a_signed_tensor_keeps_both_sides_and_zero() -> None:
    made = histogram(np.array([-3.0, -1.0, 0.5, 2.0]))
    assert value_range(made, "min-max", 127) == (-3.0, 2.0)
    assert value_range(Histogram(), "mse", 127) == (0.0, 0.0)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        histogram(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="choose from min-max, percentile, mse, entropy"):
        value_range(Histogram(), "median", 127)  # type: ignore[arg-type]
