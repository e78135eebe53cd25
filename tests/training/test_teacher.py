"""Learning from a teacher: its losses, what a run remembers of it, that it helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sa_runtime.errors import CheckpointError
from sa_training.checkpoints import Checkpoint
from sa_training.data import ArrayImages
from sa_training.loop import TrainingOptions, TrainingSet, fit
from sa_training.losses import feature_distillation, similarity_distillation
from sa_training.pixels import network_input
from sa_training.recipes import Recipe, tiny
from sa_training.teacher import Teacher, teacher_of
from sa_training.watch import read_epochs


def small(**changes: object) -> Recipe:
    network = dataclasses.replace(tiny().network, height=32, width=16, parts=2, features=16)
    recipe = dataclasses.replace(tiny(), network=network, batch=8, images_per_identity=2, pad=2)
    return dataclasses.replace(recipe, epochs=3, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def people() -> TrainingSet:
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(6), 8)
    patterns = rng.integers(40, 216, (6, 8, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    crops = np.clip(patterns[labels] + rng.normal(0, 20, (48, 32, 16, 3)), 0, 255)
    images = ArrayImages(crops.astype(np.uint8))
    return TrainingSet(name="patterns", images=images, labels=labels.tolist())


def options(out: Path, **changes: object) -> TrainingOptions:
    fields: dict[str, object] = {"device": "cpu", "precision": "fp32", **changes}
    return TrainingOptions(out=out, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(people: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return fit(small(), people, options(tmp_path_factory.mktemp("teacher")))


def test_the_losses_by_hand() -> None:
    student = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    # Similarities 0 and 0.6 off the diagonal, 1 on it: 2 * 0.36 / 4.
    assert float(similarity_distillation(student, teacher)) == pytest.approx(0.18)
    mapped = torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    assert float(feature_distillation(mapped, teacher)) == pytest.approx(1 - (1 + 0.8) / 2)
    alike = torch.randn(5, 4)
    unit = torch.nn.functional.normalize(alike, dim=1)
    assert float(similarity_distillation(7 * alike, unit)) == pytest.approx(0, abs=1e-9)


def test_it_sees_every_image_as_the_network_embeds_it(
    people: TrainingSet, trained: Checkpoint
) -> None:
    seen: list[int] = []
    teacher = teacher_of(trained.path, people, torch.device("cpu"), on_progress=seen.append)
    assert isinstance(people.images, ArrayImages)
    with torch.no_grad():
        expected = trained.network.embed(network_input(torch.from_numpy(people.images.images)))
    found = teacher.of(torch.arange(48), torch.device("cpu"))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (teacher.width, sum(seen)) == (expected.shape[1], 48)


def test_a_student_nears_its_teacher_and_resumes(
    people: TrainingSet, trained: Checkpoint, tmp_path: Path
) -> None:
    teacher = teacher_of(trained.path, people, torch.device("cpu"))
    whole = fit(small(), people, options(tmp_path / "whole"), teacher=teacher)
    epochs = read_epochs(tmp_path / "whole")
    for name in ("similarity", "feature"):
        assert epochs[-1]["losses"][name] < 0.8 * epochs[0]["losses"][name]
    cut = tmp_path / "cut"
    fit(small(), people, options(cut, max_steps=7), teacher=teacher)
    resumed = fit(small(), people, options(cut), resume=cut / "checkpoint.pt", teacher=teacher)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert not any("map" in name for name in whole.network.state_dict())
    other = Teacher(vectors_NE=teacher.vectors_NE, sha256="of another")
    for wrong in (None, other):
        with pytest.raises(CheckpointError, match="its run had teacher"):
            fit(small(), people, options(cut), resume=cut / "checkpoint.pt", teacher=wrong)
