"""``sa-deploy train -d cifar100``: the classification experiment from the command line."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_runtime.errors import DatasetError, InputError
from sa_training.classification_data import cifar100
from sa_training.tasks import load_task


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for one another's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cifar_folder(tmp_path: Path) -> Path:
    """CIFAR-100's files with 32 and 16 images: (N, 3072) planes of red, green and blue."""
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 32), ("test", 16)):
        data = rng.integers(0, 256, (count, 3072), np.uint8)
        data[0] = np.repeat([250, 130, 10], 1024)
        labels = [99, *rng.integers(0, 100, count - 1).tolist()]
        with (root / name).open("wb") as file:
            pickle.dump({b"data": data, b"fine_labels": labels}, file)
    with (root / "meta").open("wb") as file:
        pickle.dump({b"fine_label_names": [b"name"] * 100}, file)
    return root


def test_cifar100_comes_as_bgr(cifar_folder: Path) -> None:
    train, test = cifar100(cifar_folder)
    assert train.images.shape == (32, 32, 32, 3)
    assert train.images[0, 4, 7].tolist() == [10, 130, 250]
    assert (len(test.labels), test.labels[0]) == (16, 99)
    assert test.name.endswith("test")


def train(folder: Path, out: Path, *arguments: object) -> Result:
    options = ("-d", "cifar100", "--data-dir", folder, "--out", out, "--device", "cpu", *arguments)
    return CliRunner().invoke(app, ["train", *map(str, options)])


SMALL = ("--arch", "resnet14-32", "--epochs", 1, "-b", 16, "--precision", "fp32")


def test_the_command_trains_and_tests(cifar_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = train(cifar_folder, out, "--recipe", "cifar100-sa", *SMALL, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout)
    assert (result["recipe"], result["steps"]) == ("cifar100-sa", 2)
    figures = result["test"]["last, epoch 1"]
    assert list(figures) == ["top1", "top5"]
    assert 0 <= figures["top1"] <= figures["top5"] <= 1
    done = train(cifar_folder, out, "--resume", out, "--evaluate", "--json")
    assert json.loads(done.stdout) == figures


def test_recipes_for_people_and_for_other_sizes_are_refused(
    cifar_folder: Path, tmp_path: Path
) -> None:
    done = train(cifar_folder, tmp_path / "run", "--recipe", "tiny")
    assert isinstance(done.exception, InputError)
    assert "recipe tiny: finds people again" in str(done.exception)
    assert "pass `recipe='cifar100-sa'` or 'cifar100-gap'" in str(done.exception)
    done = train(cifar_folder, tmp_path / "run", "--recipe", "cifar100-gap", "--height", 64)
    assert isinstance(done.exception, InputError)
    assert "uint8 (32, 32, 32, 3) with 32 labels; expected (N, 64, 32, 3)" in str(done.exception)
    with pytest.raises(DatasetError, match="CIFAR-100"):
        load_task("cifar100", tmp_path)
    assert not (tmp_path / "run").exists()
