"""Runs that end with their time budget, by a clock that the test turns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.errors import CheckpointError, InputError
from sa_training.checkpoints import Checkpoint
from sa_training.data import ArrayImages
from sa_training.loop import fit
from sa_training.options import Progress, TrainingOptions, TrainingSet
from sa_training.overrides import override
from sa_training.pace import FIRST_REVIEW, MOST, Pace
from sa_training.recipes import Recipe, tiny
from sa_training.time_budget import TIMED, WARM_UP, pace_from_trial, seconds_a_step, seconds_of


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def steps(self, *seconds: float) -> Iterator[None]:
        """Steps that take these times, the last one ever after."""
        for taken in seconds:
            self.now += taken
            yield
        while True:
            self.now += seconds[-1]
            yield


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("60m", 3600), ("1h", 3600), ("1.5h", 5400), (" 1H30M ", 5400), ("1m5s", 65)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "m", "0s", "-5m", "1d", "5m1h", "1.2.3s", "h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match=rf"time_budget={text!r}: expected a duration, for exampl"):
        seconds_of(text)


def test_the_first_steps_do_not_count() -> None:
    clock = Clock()
    steps = clock.steps(9.0, *[3.0] * (WARM_UP - 1), *[0.5, 1.5] * TIMED)
    assert seconds_a_step(steps, 1e6, clock) == pytest.approx((0.5 + 1.5 * 2) / 3, abs=0.2)
    assert clock.now == pytest.approx(100 + 9 + 3 * (WARM_UP - 1) + TIMED, abs=1)


def test_slow_steps_end_the_trial_early() -> None:
    clock = Clock()
    assert seconds_a_step(clock.steps(30.0, 20.0), 60.0, clock) == 20.0
    assert clock.now == 150.0, "one step to warm up, one that is timed"


@pytest.fixture
def training() -> TrainingSet:
    """Six steps of 8 images an epoch."""
    images = np.random.default_rng(0).integers(0, 256, (48, 32, 16, 3), dtype=np.uint8)
    return TrainingSet(name="noise", images=ArrayImages(images), labels=[i // 8 for i in range(48)])


@pytest.fixture
def recipe() -> Recipe:
    changes = {"network.height": 32, "network.width": 16, "network.parts": 2, "batch": 8}
    return override(tiny(), {**changes, "schedule": "step", "step_size": 40})


class SteadyClock(Clock):
    """A second passes each time it is read."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def options(out: Path, **changes: object) -> TrainingOptions:
    given = {"device": "cpu", "precision": "fp32", **changes}
    return TrainingOptions(out=out, **given)  # type: ignore[arg-type]


def test_a_trial_makes_the_first_plan(
    training: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    """The steps are real, their time is not: 19,600 of 20,000 s, at 1.04 s a step."""
    long = dataclasses.replace(recipe, epochs=1000)
    run = options(tmp_path / "run")
    pace, fitting = pace_from_trial(long, training, run, 20_000.0, clock=SteadyClock())
    (plan,) = pace.plans
    assert (pace.epoch_steps, plan.step, plan.position) == (6, 0, 0.0)
    assert plan.step_s == pytest.approx(1.04)
    assert plan.steps == pytest.approx((19_600 - plan.elapsed_s) / 1.04, abs=1)
    assert fitting == pytest.approx(plan.steps / 6, abs=0.2)
    assert not run.out.exists()


@pytest.mark.parametrize(("budget_s", "steps"), [(1.0, 1), (1e9, 6 * MOST * tiny().epochs)])
def test_the_least_and_the_most(
    training: TrainingSet, recipe: Recipe, tmp_path: Path, budget_s: float, steps: int
) -> None:
    pace, _ = pace_from_trial(recipe, training, options(tmp_path), budget_s, clock=SteadyClock())
    assert pace.steps == steps


def walked(pace: Pace, clock: Clock, recipe: Recipe, seconds: Callable[[], float]) -> list[float]:
    """Take the steps of a run without a network; the learning rates they would have."""
    rates: list[float] = []
    while len(rates) < pace.steps:
        rates.append(recipe.lr * pace.factor(recipe, len(rates)))
        clock.now += seconds()
        pace.review(len(rates))
    return rates


@settings(max_examples=20)
@given(
    budget=st.integers(2_000, 10_000),
    epoch_steps=st.integers(1, 300),
    guess=st.floats(0.2, 5.0),
    moment=st.floats(0.0, 1.0),
    factor=st.floats(0.2, 5.0),
)
def test_it_ends_with_its_budget_whatever_the_machine_does(
    budget: int, epoch_steps: int, guess: float, moment: float, factor: float
) -> None:
    """Rehearsed up to five times too slow or too fast; at some moment another speed."""
    clock = Clock()
    chosen = dataclasses.replace(tiny(), epochs=100_000)
    pace = Pace(budget, clock=clock)
    pace.begin(chosen, epoch_steps, guess)
    rates = walked(pace, clock, chosen, lambda: factor if pace.elapsed_s > moment * budget else 1.0)
    assert 0.95 * budget <= pace.elapsed_s <= 1.05 * budget
    assert rates[-1] < 0.01 * chosen.lr, "the schedule has come to its end"
    highest = int(np.argmax(rates))
    assert rates[highest] == pytest.approx(chosen.lr, rel=0.02)
    assert (np.diff(rates[: highest + 1]) >= 0).all()
    assert (np.diff(rates[highest:]) <= 0).all(), "no jump back where the plan changed"


def test_steps_of_the_rate_come_at_the_same_fractions() -> None:
    """Every 40th of 100 epochs: after two and four fifths of whatever is done."""
    clock, chosen = Clock(), dataclasses.replace(tiny(), epochs=100, schedule="step", warmup=0.0)
    chosen = dataclasses.replace(chosen, step_size=40)
    pace = Pace(1000.0, clock=clock)
    pace.begin(chosen, 10, 1.0)
    rates = walked(pace, clock, chosen, lambda: 1.0)
    assert len(rates) == 980
    falls = [n for n in range(1, 980) if rates[n] < rates[n - 1]]
    assert falls == pytest.approx([392, 784], abs=1)


def test_a_slow_machine_is_seen_after_the_first_hundred_steps() -> None:
    """One that a look every hundredth of the budget would see late."""
    clock, chosen = Clock(), dataclasses.replace(tiny(), epochs=1000)
    pace = Pace(100_000.0, clock=clock)
    pace.begin(chosen, 1000, 1.0)
    for step in range(1, FIRST_REVIEW + 1):
        clock.now += 5.0
        pace.review(step)
    assert [plan.step for plan in pace.plans] == [0, FIRST_REVIEW]
    assert pace.plans[-1].step_s == 5.0


class Timed:
    """A training whose steps take a second each, and five from the 20th on, by its own clock."""

    def __init__(self, training: TrainingSet, recipe: Recipe) -> None:
        self.clock, self.rates = Clock(), list[float]()
        self.training, self.recipe = training, recipe

    def pace(self, *, begun: bool = True) -> Pace:
        pace = Pace(100.0, clock=self.clock)
        if begun:
            pace.begin(self.recipe, 6, 1.0)
        return pace

    def run(self, out: Path, pace: Pace, **changes: Any) -> Checkpoint:
        def on_step(state: Progress) -> None:
            self.clock.now += 5.0 if state.step >= 20 else 1.0
            self.rates.append(state.lr)

        resume = changes.pop("resume", None)
        evaluate = changes.pop("evaluate", None)
        chosen = options(out, **changes)
        return fit(
            self.recipe,
            self.training,
            chosen,
            resume=resume,
            on_step=on_step,
            evaluate=evaluate,
            pace=pace,
        )


@pytest.fixture
def timed(training: TrainingSet, recipe: Recipe) -> Timed:
    return Timed(training, dataclasses.replace(recipe, epochs=200, schedule="cosine", warmup=0.1))


def test_a_machine_that_slows_down_ends_its_run_in_time(timed: Timed, tmp_path: Path) -> None:
    pace = timed.pace()
    done = timed.run(tmp_path / "run", pace)
    assert pace.plans[0].steps == 98
    assert done.training["step"] == len(timed.rates) == pytest.approx(20 + (100 - 20) / 5, abs=3)
    assert 0.95 * 100 <= pace.elapsed_s <= 1.05 * 100
    assert timed.rates[-1] < 0.01 * timed.recipe.lr
    assert done.training["pace"]["plans"] == [dataclasses.asdict(plan) for plan in pace.plans]


@pytest.mark.parametrize("stop", [7, 25])
def test_a_resumed_run_decides_as_the_whole_one_did(
    timed: Timed, training: TrainingSet, tmp_path: Path, stop: int
) -> None:
    whole = timed.run(tmp_path / "whole", timed.pace())
    cut = Timed(training, timed.recipe)
    half = cut.run(tmp_path / "cut", cut.pace(), max_steps=stop)
    assert half.training["step"] == stop
    cut.clock.now += 1e6  # until somebody resumes it
    resumed = cut.run(tmp_path / "cut", cut.pace(begun=False), resume=half.path)
    assert cut.rates == timed.rates
    assert resumed.training["pace"] == whole.training["pace"]
    others = resumed.network.state_dict()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, others[name]), name


def test_a_resumed_run_keeps_the_budget_that_stands_in_its_checkpoint(
    timed: Timed, tmp_path: Path
) -> None:
    """Nobody passes it again: by the real clock its few seconds go a long way."""
    half = timed.run(tmp_path / "run", timed.pace(), max_steps=8)
    resumed = fit(
        timed.recipe, timed.training, options(half.path.parent, max_steps=9), resume=half.path
    )
    assert resumed.training["pace"]["budget_s"] == 100.0
    assert resumed.training["pace"]["plans"][0] == half.training["pace"]["plans"][0]


def test_another_budget_replaces_it_and_is_planned_at_once(timed: Timed, tmp_path: Path) -> None:
    half = timed.run(tmp_path / "run", timed.pace(), max_steps=8)
    shorter = Pace(30.0, clock=timed.clock)
    timed.run(tmp_path / "run", shorter, resume=half.path)
    assert shorter.plans[-1].steps == len(timed.rates) == pytest.approx(22, abs=1)
    assert 9 in [plan.step for plan in shorter.plans]


def test_a_run_without_a_budget_gets_none_when_it_is_resumed(timed: Timed, tmp_path: Path) -> None:
    half = fit(timed.recipe, timed.training, options(tmp_path, max_steps=2))
    with pytest.raises(CheckpointError, match=r"its run was begun without `time_budget`; leave it"):
        timed.run(tmp_path, timed.pace(begun=False), resume=half.path)


def test_evaluation_is_not_counted(timed: Timed, tmp_path: Path) -> None:
    def evaluate(_: object) -> dict[str, float]:
        timed.clock.now += 1e5
        return {"mAP": 0.5}

    done = timed.run(tmp_path, timed.pace(), evaluate=evaluate, evaluate_every=1)
    assert done.training["step"] == pytest.approx(20 + (100 - 20) / 5, abs=3)


@pytest.mark.alone
def test_by_the_real_clock(training: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    """Twelve seconds, from the fourth on five times as slow."""
    chosen = dataclasses.replace(recipe, epochs=100_000)
    began = time.perf_counter()
    pace, _ = pace_from_trial(chosen, training, options(tmp_path / "run"), 12.0)
    before = began

    def slower(state: Progress) -> None:
        nonlocal before
        now = time.perf_counter()
        if now - began > 4:
            time.sleep(4 * (now - before))
        before = time.perf_counter()

    fit(chosen, training, options(tmp_path / "run"), on_step=slower, pace=pace)
    assert time.perf_counter() - began == pytest.approx(12.0, rel=0.05)
    assert pace.plans[-1].step_s > 3 * pace.plans[0].step_s
