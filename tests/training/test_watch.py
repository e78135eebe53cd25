"""Curves and TensorBoard events."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import pytest

from sa_training.loop import Progress
from sa_training.watch import Metrics, draw_curves

NAMES = ("part0", "global", "stage1", "triplet")


def progress(step: int) -> Progress:
    losses = {name: 4.0 / step + i for i, name in enumerate(NAMES)}
    return Progress(
        epoch=1 + step // 5,
        epochs=4,
        step=step,
        steps=20,
        loss=sum(losses.values()),
        losses=losses,
        accuracy=step / 20,
        lr=0.1,
        images_per_s=100.0,
    )


def write(out: Path, *, evaluated: bool, tensorboard: bool = False) -> None:
    with Metrics.opened(out, names=NAMES, step=0, tensorboard=tensorboard) as metrics:
        for step in range(1, 21):
            metrics.step(progress(step))
            if step % 5 == 0:
                figures = {"mAP": step / 40, "rank1": step / 30} if evaluated else {}
                record = {"epoch": step // 5, "step": step, "loss": 9.0 / step, **figures}
                metrics.epoch({**record, "images_per_s": 90.0})


@pytest.mark.parametrize("evaluated", [True, False])
def test_curves_are_a_picture(tmp_path: Path, evaluated: bool) -> None:
    write(tmp_path, evaluated=evaluated)
    picture = cv2.imread(str(draw_curves(tmp_path)))
    assert picture is not None
    assert picture.shape[0] > 600
    assert picture.shape[1] > 1000
    drawn = (picture.min(axis=2) < 200).mean()
    assert 0.01 < drawn < 0.5


def test_curves_of_a_run_without_a_whole_epoch(tmp_path: Path) -> None:
    with Metrics.opened(tmp_path, names=NAMES, step=0, tensorboard=False) as metrics:
        metrics.step(progress(1))
    assert draw_curves(tmp_path).is_file()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with Metrics.opened(None, names=NAMES, step=0, tensorboard=True) as metrics:
        metrics.step(progress(1))
        metrics.epoch({"epoch": 1, "step": 1})
    assert not list(tmp_path.iterdir())


def test_events_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, evaluated=True, tensorboard=True)
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("step/loss_part0")]
    assert found[1] == (2, pytest.approx(2.0))
    assert len(found) == 20
    assert [e.value for e in events.Scalars("epoch/mAP")] == pytest.approx(
        [0.125, 0.25, 0.375, 0.5]
    )
