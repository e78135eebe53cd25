"""Artefacts that tests of every floor share, each made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sa_training.network import SANetwork

TINY_SEED = 20_260
# How long an example takes depends on what else the machine does.
settings.register_profile("sa-deploy", deadline=None)
settings.load_profile("sa-deploy")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test measures runtimes unless it asks to, and none writes into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SA_DEPLOY_CALIBRATE", "0")
        patch.setenv("SA_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny_network(**changes: object) -> SANetwork:
    """A resnet10-thin SA network with random weights and batch-norm statistics of its own."""
    import dataclasses

    import torch
    from torch import nn

    from sa_training.network import SANetwork
    from sa_training.recipes import tiny

    config = dataclasses.replace(tiny().network, classes=4, **changes)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(TINY_SEED)
        network = SANetwork(config)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``checkpoint.pt`` of :func:`tiny_network` at 128x64, embedding ``parts`` of 1536 numbers."""
    import dataclasses

    from sa_training.checkpoints import save_checkpoint
    from sa_training.recipes import tiny

    network = tiny_network()
    path = tmp_path_factory.mktemp("tiny") / "checkpoint.pt"
    save_checkpoint(path, network, dataclasses.replace(tiny(), network=network.config), 1, {})
    return path


@pytest.fixture(scope="session")
def tiny_onnx_model(tiny_checkpoint: Path) -> Path:
    """``model.onnx`` of :func:`tiny_checkpoint`: FP32, uint8 NHWC in, dynamic batch."""
    from sa_export.artefacts import Exporter
    from sa_export.crops import validation_crops
    from sa_export.options import ExportOptions
    from sa_training.checkpoints import load_checkpoint

    crops = validation_crops(None, height=128, width=64)
    exporter = Exporter(load_checkpoint(tiny_checkpoint), ExportOptions(), crops)
    return exporter.write("onnx", tiny_checkpoint.parent).path


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set: 24 people, 4 cameras, 2 images each, one 2-second video."""
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

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
