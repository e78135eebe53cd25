"""Epochs that fit a time budget, by a clock that the test turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_training.data import ArrayImages
from sa_training.options import TrainingOptions, TrainingSet
from sa_training.recipes import Recipe, override, tiny
from sa_training.time_budget import MOST, TIMED, WARM_UP, fit_to_budget, seconds_a_step, seconds_of


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
    with pytest.raises(InputError, match=rf"--time-budget {text}: expected a duration, for exampl"):
        seconds_of(text)


def test_the_first_steps_do_not_count() -> None:
    clock = Clock()
    steps = clock.steps(9.0, *[3.0] * (WARM_UP - 1), *[0.5, 1.5] * TIMED)
    assert seconds_a_step(steps, 1e6, clock) == pytest.approx((0.5 + 1.5 * 2) / 3, abs=0.2)
    assert clock.now == pytest.approx(100 + 9 + 3 * (WARM_UP - 1) + TIMED, abs=1)


def test_slow_steps_end_the_rehearsal_early() -> None:
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


def test_a_budget_sets_the_epochs(training: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    """The steps are real, their time is not: 19,000 of 20,000 s, at 1.04 s a step."""
    options = TrainingOptions(out=tmp_path / "run", device="cpu", precision="fp32")
    long = dataclasses.replace(recipe, epochs=1000, step_size=400)
    fitted = fit_to_budget(long, training, options, 20_000.0, clock=SteadyClock())
    assert fitted.epoch_steps == 6
    assert fitted.step_s == pytest.approx(1.04)
    epochs = fitted.recipe.epochs
    assert epochs == pytest.approx(19_000 / (6 * 1.04), abs=10)
    assert epochs == int(fitted.epochs)
    step_size = round(400 * epochs / 1000)
    assert fitted.recipe == dataclasses.replace(long, epochs=epochs, step_size=step_size)
    assert not options.out.exists()


@pytest.mark.parametrize(("budget_s", "epochs"), [(1.0, 1), (1e9, MOST * tiny().epochs)])
def test_the_least_and_the_most(
    training: TrainingSet, recipe: Recipe, tmp_path: Path, budget_s: float, epochs: int
) -> None:
    options = TrainingOptions(out=tmp_path / "run", device="cpu", precision="fp32")
    fitted = fit_to_budget(recipe, training, options, budget_s, clock=SteadyClock())
    assert fitted.recipe.epochs == epochs
    assert fitted.recipe.step_size == recipe.step_size * epochs // recipe.epochs
