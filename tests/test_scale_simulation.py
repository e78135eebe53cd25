"""The simulation of docs/scale.md says what was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCALE = runpy.run_path(str(BENCHMARKS / "scale.py"))
RUNS = [
    run
    for run in json.loads((BENCHMARKS / "results" / "serve.json").read_text())["runs"]
    if run["people"] == 1
    and run["apart"]  # it knows nothing of clients on the same cores
    and run["waves"] > 1  # and bursts that are two batches apart stand on an edge
]
WITHIN = {
    "full load, answers/s": 0.05,
    "full load, p50 ms": 0.1,
    "half load, p50 ms": 0.15,
    "five times, answers/s": 0.1,
    "five times, p50 ms": 0.1,
}
"""Of the measured figure; tails hang on what else runs on a machine, which no simulation knows."""


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['model']}-{run['load_average']:.1f}")
def test_the_simulation_reproduces_the_measured_points(run: dict[str, Any]) -> None:
    rows = {name: (measured, simulated) for name, measured, simulated in SCALE["beside"](run)}
    assert set(WITHIN) <= set(rows)
    for name, within in WITHIN.items():
        measured, simulated = rows[name]
        assert simulated == pytest.approx(measured, rel=within), name


def test_a_service_without_costs_gives_what_its_model_does_and_no_more() -> None:
    common: dict[str, Any] = {"seconds": 30, "batch": 8, "delay_s": 0.01, "queue": 24}
    full = SCALE["simulate"](clients=16, rate=0, crop_s=0.01, **common)
    assert full.per_s == pytest.approx(100, rel=0.02)
    assert full.p50_ms == pytest.approx(160, rel=0.05)
    lanes = SCALE["simulate"](clients=32, rate=0, crop_s=0.02, lanes=2, **common)
    assert lanes.per_s == pytest.approx(100, rel=0.02)
    over = SCALE["simulate"](clients=80, rate=500, crop_s=0.01, **common)
    assert over.per_s == pytest.approx(100, rel=0.02)
    assert over.refused_per_s > 300
    assert over.p99_ms <= 1000 * 0.01 * (24 + 8 + 8)
