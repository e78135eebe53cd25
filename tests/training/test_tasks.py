"""Data sets as tasks, and people held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.errors import InputError
from sa_training.recipes import tiny
from sa_training.tasks import Reidentification, load_task, split_off
from tests.conftest import tiny_network


@pytest.fixture
def dataset() -> ReidDataset:
    train = tuple(
        Sample(Path(f"{person}_{camera}_{shot}.jpg"), person, camera)
        for person in range(10, 20)
        for camera in range(3)
        for shot in range(2)
    )
    return ReidDataset(name="x", root=Path(), train=train, query=(), gallery=())


def test_people_held_out_are_not_trained_on(dataset: ReidDataset) -> None:
    task = split_off(dataset, 0.3, seed=1)
    assert task.held_out is not None
    trained = {sample.person for sample in task.dataset.train}
    held = {sample.person for sample in (*task.held_out.query, *task.held_out.gallery)}
    assert (len(trained), len(held)) == (7, 3)
    assert not trained & held
    assert len({(s.person, s.camera) for s in task.held_out.query}) == len(task.held_out.query) == 9
    assert len(task.held_out.gallery) == 9
    assert not set(task.held_out.query) & set(task.held_out.gallery)
    assert task.training(tiny(), keep=False).classes == 7
    assert task.counts()["held out"] == "18 images, 3 people"
    assert split_off(dataset, 0.3, seed=1) == task
    assert split_off(dataset, 0.3, seed=2) != task


def test_nobody_is_held_out_by_default(dataset: ReidDataset) -> None:
    assert split_off(dataset, 0.0, seed=0) == Reidentification(dataset=dataset)


@pytest.mark.parametrize("fraction", [0.01, 1.0, -0.5])
def test_both_sides_keep_people(dataset: ReidDataset, fraction: float) -> None:
    with pytest.raises(InputError, match=rf"hold_out={fraction}: holds out .* of 10 people"):
        split_off(dataset, fraction, seed=0)


def test_scores_while_training_are_of_those_held_out(synthetic_root: Path) -> None:
    task = load_task("synthetic", synthetic_root, hold_out=0.25, seed=3)
    assert isinstance(task, Reidentification)
    network = tiny_network()
    held, test = task.score(network), task.test(network)
    assert list(held) == ["mAP", "rank1"]
    assert list(test) == ["mAP", "rank1", "rank5", "rank10"]
    assert held["mAP"] != test["mAP"]
    assert 0 < test["mAP"] < 1
    assert test["rank1"] <= test["rank5"] <= test["rank10"] <= 1
