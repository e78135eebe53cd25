"""A network trained for a few seconds, and the crops that exports of it are judged on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from sa_export.crop_set import CropSet
from sa_export.crop_sets import calibration_crops, validation_crops
from tests.conftest import MadeOnce

if TYPE_CHECKING:
    from sa_training.checkpoints import Checkpoint


@pytest.fixture(scope="session")
def crops() -> CropSet:
    """The generated validation set at 128x64: 96 queries, 212 gallery crops."""
    return validation_crops(None, height=128, width=64)


@pytest.fixture(scope="session")
def calibration() -> CropSet:
    """96 of the generated calibration crops at 128x64."""
    return calibration_crops(None, height=128, width=64, limit=96)


@pytest.fixture(scope="session")
def trained_path(made_once: MadeOnce) -> Path:
    """``checkpoint.pt`` of a tiny network trained on 40 synthetic people for 50 steps."""
    return made_once("trained", _train) / "run" / "checkpoint.pt"


def _train(root: Path) -> None:
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic
    from sa_training.train import train_model

    config = SyntheticConfig(
        seed=5, identities=42, cameras=4, images_per_camera=4, train_fraction=0.95,
        distractors=0, junk=0, videos=0, people_per_video=1,
    )  # fmt: skip
    write_synthetic(root / "world", config, workers=1)
    changes = {"epochs": 5, "lr": 2e-3}
    train_model(
        "synthetic", root / "world", out=root / "run", recipe="tiny", changes=changes, seed=3
    )


@pytest.fixture(scope="session")
def trained(trained_path: Path) -> Checkpoint:
    """The checkpoint of :func:`trained_path`, loaded."""
    from sa_training.checkpoints import load_checkpoint

    return load_checkpoint(trained_path)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny networks: one thread is faster than two that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _exports_in_this_process(exports_share: None) -> None:
    """Every module here exports."""
