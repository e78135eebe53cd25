"""Artefacts that tests of every floor share, each made once a session."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

from sa_deploy.logs import PACKAGES
from tests.clip import Clip, clip_in, write_clip
from tests.exports import drawn_once, parsed_once, traced_once

if TYPE_CHECKING:
    from sa_training.network import SANetwork

collect_ignore = ["rtsp_server.py"]
"""A program of its own, for the Python that GStreamer comes with."""
MadeOnce = Callable[[str, Callable[[Path], object]], Path]
MADE_VARIABLE = "SA_DEPLOY_MADE"
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


@pytest.fixture(scope="session")
def exports_share(made_once: MadeOnce) -> Iterator[None]:
    """Exports of this process share what they have in common.

    For tests that export in this process; the others do not pay for the import of torch.
    """
    with parsed_once(), drawn_once(made_once), traced_once():
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """What a shell starts in the background ignores SIGINT, and so would all that we start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """What a command sets for its own process does not stay: SIGTERM ends the tests at once.

    Nor does the SIGCHLD handler of torch's loaders: with it the end of a child was the end of the
    tests, by a SIGSEGV of the kernel, where some library had left a bad alternate signal stack.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        if handler is not None:  # as one is that was not set from Python
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _log_levels_as_they_were() -> Iterator[None]:
    """What a command was asked to say is not what the next test hears."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MadeOnce:
    """Gives a folder of some name, filled by whichever of several test processes comes first.

    Where a variable names their folder, several sessions share it, as those of ``make test`` do.
    """
    own = tmp_path_factory.getbasetemp()
    given = os.environ.get(MADE_VARIABLE)
    root = Path(given) if given else own if worker_id == "master" else own.parent
    root.mkdir(parents=True, exist_ok=True)

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, partial = root / name, root / f"{name}.partial"
        with FileLock(root / f"{name}.lock"):
            if not path.exists():
                partial.mkdir()
                fill(partial)
                partial.rename(path)
        return path

    return folder


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
def tiny_checkpoint(made_once: MadeOnce) -> Path:
    """``checkpoint.pt`` of :func:`tiny_network` at 128x64, embedding ``parts`` of 1536 numbers."""
    import dataclasses

    pytest.importorskip("torch", reason="torch is not installed: nothing can be exported here")

    from sa_training.checkpoints import save_checkpoint
    from sa_training.recipes import tiny

    def fill(folder: Path) -> None:
        network = tiny_network()
        recipe = dataclasses.replace(tiny(), network=network.config)
        save_checkpoint(folder / "checkpoint.pt", network, recipe, 1, {})

    return made_once("tiny", fill) / "checkpoint.pt"


@pytest.fixture(scope="session")
def tiny_onnx_model(
    tiny_checkpoint: Path, made_once: MadeOnce, request: pytest.FixtureRequest
) -> Path:
    """``model.onnx`` of :func:`tiny_checkpoint`: FP32, uint8 NHWC in, dynamic batch."""
    from sa_export.export import export_model

    def fill(folder: Path) -> None:
        request.getfixturevalue("exports_share")
        export_model(tiny_checkpoint, folder)

    return made_once("tiny_onnx", fill) / "model.onnx"


@pytest.fixture(scope="session")
def clip(made_once: MadeOnce) -> Clip:
    """A video of 40 frames with the boxes of nine tracks, of which some are missed."""
    return clip_in(made_once("clip", write_clip))


@pytest.fixture(scope="session")
def synthetic_root(made_once: MadeOnce) -> Path:
    """A small synthetic data set: 24 people, 4 cameras, 2 images each, one 2-second video."""
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

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
    return (
        made_once("synthetic", lambda folder: write_synthetic(folder / "world", config, workers=1))
        / "world"
    )
