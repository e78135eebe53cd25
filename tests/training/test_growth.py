"""Inputs that grow: their schedule, their steps, what they cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sa_runtime.crops import resize
from sa_runtime.errors import InputError
from sa_training.data import ArrayImages
from sa_training.growth import Phase, cost_at, mean_cost, phase_at, phases, resized
from sa_training.loop import Progress, TrainingOptions, TrainingSet, fit
from sa_training.overrides import override
from sa_training.pace import Pace
from sa_training.recipes import Recipe, hour, recipe, tiny
from sa_training.step import Trainer

GROWING = "32x16:0.25,48x24:0.5"


def small(growing: str = GROWING) -> Recipe:
    network = dataclasses.replace(tiny().network, height=64, width=32, parts=2, features=16)
    return dataclasses.replace(tiny(), network=network, batch=8, epochs=4, growing=growing)


@pytest.fixture(scope="module")
def people() -> TrainingSet:
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(8), 4)
    colours = rng.integers(0, 256, (8, 1, 1, 3))[labels]
    crops = (colours + rng.integers(-20, 20, (32, 64, 32, 3))).clip(0, 255).astype(np.uint8)
    return TrainingSet(name="colours", images=ArrayImages(crops), labels=labels.tolist())


def test_a_schedule() -> None:
    found = phases(GROWING, 64, 32)
    assert found == (Phase(0.25, 32, 16), Phase(0.5, 48, 24), Phase(1.0, 64, 32))
    assert [phase_at(found, done).height for done in (0, 0.24, 0.25, 0.5, 0.99, 1.0)] == [
        *(32, 32, 48, 64, 64, 64)
    ]
    assert [cost_at(found, done) for done in (0, 0.3, 0.7)] == [1, 2.25, 4]
    assert mean_cost(found, 0) == pytest.approx(0.25 + 0.25 * 2.25 + 0.5 * 4)
    assert mean_cost(found, 0.4) == pytest.approx((0.1 * 2.25 + 0.5 * 4) / 0.6)
    assert mean_cost(found, 1.0) == 4
    assert phases("", 64, 32) == (Phase(1.0, 64, 32),)


@pytest.mark.parametrize("growing", ["32x16", "32x16:0", "32x16:1", "32x16:0.5,48x24:0.5", "a,b"])
def test_what_is_no_schedule(growing: str) -> None:
    with pytest.raises(InputError, match=r"growing=.*expected"):
        small(growing)


def test_every_size_has_rows_for_the_parts() -> None:
    with pytest.raises(InputError, match="16x8 gives resnet10-thin 1 rows for 2 parts"):
        small("16x8:0.5")


def test_crops_shrink_as_they_are_read() -> None:
    """The batch is shrunk as the crop code shrinks a crop: antialiased, to two grey levels."""
    rng = np.random.default_rng(3)
    crop = rng.integers(0, 256, (20, 10, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    expected = resize(crop, 96, 48).astype(float)
    x_N3HW = torch.from_numpy(crop).float().permute(2, 0, 1)[None]
    found = resized(x_N3HW, Phase(0.5, 96, 48))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 2
    assert resized(x_N3HW, None) is x_N3HW


def test_a_run_grows_and_resumes_in_the_middle(
    people: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole_step = Trainer.step

    def step(self: Trainer, images, labels, number, phase=None, teacher=None):  # type: ignore[no-untyped-def]
        assert images.shape[1:3] == (64, 32), "augmented at full size"
        seen.append(phase.height)
        return whole_step(self, images, labels, number, phase, teacher)

    monkeypatch.setattr(Trainer, "step", step)

    def run(
        out: str, resume: Path | None = None, max_steps: int | None = None
    ) -> dict[str, torch.Tensor]:
        options = TrainingOptions(
            out=tmp_path / out, device="cpu", precision="fp32", max_steps=max_steps
        )
        return fit(small(), people, options, resume=resume).network.state_dict()

    whole = run("whole")
    assert seen == [32] * 4 + [48] * 4 + [64] * 8
    run("cut", max_steps=6)
    resumed = run("cut", resume=tmp_path / "cut" / "checkpoint.pt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_budget_knows_what_growing_costs() -> None:
    """A step of s pixels takes s units of a clock: the run must end with its budget, and in the
    phases' proportions."""
    chosen, now, budget_s = small(), [0.0], 1000.0
    pace = Pace(budget_s, clock=lambda: now[0])
    chosen = dataclasses.replace(chosen, epochs=1000)
    pace.begin(chosen, 4, 1.0)
    heights, step = [], 0
    while step < pace.steps:
        phase = phase_at(chosen.phases, pace.done(step))
        now[0] += phase.height * phase.width / 512
        heights.append(phase.height)
        step += 1
        pace.review(step)
    assert 0.95 * budget_s <= now[0] <= 1.01 * budget_s
    assert len(pace.plans) == 1, "the first plan was right"
    assert heights.count(64) == pytest.approx(len(heights) / 2, rel=0.02)


def test_the_recipe_of_an_hour() -> None:
    chosen = recipe("hour")
    assert chosen == hour()
    assert chosen.phases == (Phase(1.0, 160, 80),)
    grown = override(chosen, {"growing": "96x48:0.4,128x64:0.75"})
    assert [phase.height for phase in grown.phases] == [96, 128, 160]


def test_steps_report_as_ever(people: TrainingSet, tmp_path: Path) -> None:
    states: list[Progress] = []
    options = TrainingOptions(out=tmp_path, device="cpu", precision="fp32", max_steps=2)
    fit(small(), people, options, on_step=states.append)
    assert [state.step for state in states] == [1, 2]
