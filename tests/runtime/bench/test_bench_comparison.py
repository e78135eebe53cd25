"""Whether a build is slower than another: verdicts through the noise of a machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.bench.compare import Comparison, compare, parse_percent, require_no_slower
from sa_runtime.bench.result import BenchResult, ContenderResult, Series, percentiles
from sa_runtime.errors import (
    InputError,
)

if TYPE_CHECKING:
    pass

pytest_plugins = ("tests.tiny_onnx",)


def invented(
    speed: float, *, noise: float, seed: int, rounds: int = 20, busy: float = 0.0
) -> BenchResult:
    """A result of one series whose rounds scatter, on a machine that is busy at times."""
    rng = np.random.default_rng(seed)
    pace = 0.3 * (1 - busy * rng.random(rounds))
    speeds = speed * pace / 0.3 * np.exp(noise * rng.standard_normal(rounds))
    series = Series(
        batch=8,
        streams=1,
        iterations=rounds,
        images_per_s=float(np.median(speeds)),
        latency_ms=percentiles((8000 / speeds).tolist()),
        percent_of_limit=None,
        rounds_images_per_s=tuple(speeds.tolist()),
        rounds_pace_tflops=tuple(pace.tolist()),
    )
    contender = ContenderResult(
        name="openvino bf16", model="m.onnx", runtime="openvino", precision="bf16", device="cpu",
        details={}, reason="", size_mb=1.0, open_s=0.1, first_s=0.1, peak_memory_mb=100.0,
        cosine=None, retrieval=None, end_to_end=None, series=(series,),
    )  # fmt: skip
    return BenchResult(
        created="2026-01-01T00:00:00+00:00",
        environment={"processor": "x", "cores": 2, "governor": "", "versions": {"openvino": "1"}},
        options={},
        limits_tflops={},
        reference="openvino bf16",
        contenders=(contender,),
        skipped={},
    )


def verdict(base: BenchResult, new: BenchResult, fail_above: float = 0.05) -> str:
    (change,) = compare(base, new, fail_above=fail_above).changes
    return change.verdict


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0, 0.3),
    busy=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
)
def test_an_unchanged_build_is_never_called_slower(
    seed: int, noise: float, busy: tuple[float, float]
) -> None:
    base = invented(100, noise=noise, seed=2 * seed, busy=busy[0])
    new = invented(100, noise=noise, seed=2 * seed + 1, busy=busy[1])
    assert verdict(base, new) in ("same", "noisy")


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), slowdown=st.floats(0.1, 0.9), busy=st.floats(0, 0.9))
def test_a_slower_build_is_seen_through_a_busy_machine(
    seed: int, slowdown: float, busy: float
) -> None:
    base = invented(100, noise=0.02, seed=2 * seed)
    new = invented(100 * (1 - slowdown), noise=0.02, seed=2 * seed + 1, busy=busy)
    expected = "slower" if slowdown > 0.13 else ("slower", "same", "noisy")
    assert verdict(base, new) in expected
    assert verdict(new, base) != "slower"


def test_a_busy_machine_is_not_a_slower_build() -> None:
    base = invented(100, noise=0.0, seed=1)
    new = invented(100, noise=0.0, seed=2, busy=0.8)
    assert new.contenders[0].series[0].images_per_s < 80
    (change,) = compare(base, new, fail_above=0.05).changes
    assert change.change == pytest.approx(0, abs=1e-9)
    assert change.verdict == "same"


def test_an_error_bar_wider_than_the_gate_is_said() -> None:
    base, new = invented(100, noise=0.2, seed=1), invented(94, noise=0.2, seed=2)
    comparison = compare(base, new, fail_above=0.05)
    assert comparison.slower == ()
    (text,) = comparison.notes
    assert text.startswith("too noisy to see 5 % in 1 of 1 series: measure longer (`duration`)")
    require_no_slower(comparison)


def test_results_that_do_not_compare_say_so() -> None:
    base = invented(100, noise=0.01, seed=1)
    renamed = dataclasses.replace(base.contenders[0], name="openvino fp32")
    other = dataclasses.replace(base, contenders=(renamed,))
    with pytest.raises(
        InputError, match=r"in common: openvino bf16 at batch 8 and openvino fp32 at batch 8; meas"
    ):
        compare(base, other, fail_above=0.05)
    both = dataclasses.replace(
        base,
        contenders=(base.contenders[0], renamed),
        environment={**base.environment, "cores": 4, "versions": {"openvino": "2", "numpy": "3"}},
    )
    found = compare(both, base, fail_above=0.05)
    assert found.notes == (
        "base and result differ in more than the build: cores 4 and 2; numpy 3 and absent; "
        "openvino 2 and 1",
        "in the base only: openvino fp32 at batch 8",
    )
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match=r"fail_above=-?[\d.]+: expected more than 0 and"):
            compare(base, base, fail_above=wrong)
    for text in ("", "fast", "5 percent"):
        with pytest.raises(InputError, match="expected a percentage such as 5%"):
            parse_percent(text)
    assert parse_percent("0.5%") == 0.005
    assert isinstance(found, Comparison)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a result of `sa-deploy bench --out`"),
        ("[]", "not a result of `sa-deploy bench --out`"),
        ('{"schema": 1}', "not a result of .*'contenders'"),
        ('{"schema": 7}', "schema 7, this version reads 1; measure the base again"),
    ],
)
def test_a_base_that_is_none_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "base.json").write_text(content)
    with pytest.raises(InputError, match=rf"base\.json: {message}"):
        BenchResult.from_file(tmp_path / "base.json")
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        BenchResult.from_file(tmp_path / "absent.json")
