"""Fixtures that tests of every floor share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set: 24 people, 4 cameras, 2 images each, one 2-second video."""
    out = tmp_path_factory.mktemp("synthetic") / "world"
    config = SyntheticConfig(
        identities=24,
        cameras=4,
        images_per_camera=2,
        distractors=12,
        junk=6,
        videos=1,
        video_seconds=2.0,
        people_per_video=4,
    )
    write_synthetic(out, config, workers=1)
    return out
