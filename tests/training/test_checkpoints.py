"""Checkpoints: whole or refused, and the one before."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

from sa_runtime.errors import CheckpointError
from sa_training.checkpoints import load_checkpoint, remove_partial, save_checkpoint
from sa_training.recipes import tiny
from tests.conftest import tiny_network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of one run, after epochs 3 and 4."""
    folder = tmp_path_factory.mktemp("run")
    network = tiny_network()
    recipe = dataclasses.replace(tiny(), network=network.config)
    for epoch in (3, 4):
        state = {"step": 10 * epoch}
        path = folder / "checkpoint.pt"
        save_checkpoint(path, network, recipe, epoch, state, keep_previous=True)
    return folder


def copy(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, dirs_exist_ok=True)
    previous = folder / "checkpoint.previous.pt"
    os.utime(previous, (1, 1))
    return folder / "checkpoint.pt"


def test_the_checkpoint_before_is_kept(run: Path) -> None:
    assert load_checkpoint(run / "checkpoint.pt").epoch == 4
    assert load_checkpoint(run / "checkpoint.previous.pt").training["step"] == 30
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_with_the_last_good_one(
    run: Path, tmp_path: Path, kept: float
) -> None:
    path = copy(run, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint\.pt: not a readable checkpoint.*the last good one is .*"
        r"checkpoint\.previous\.pt \(epoch 3, step 30\): pass that",
    ):
        load_checkpoint(path)


def test_the_newest_of_several_good_ones_is_named(run: Path, tmp_path: Path) -> None:
    path = copy(run, tmp_path)
    shutil.copy(path, tmp_path / "best.pt")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"the last good one is .*best\.pt \(epoch 4"):
        load_checkpoint(path)


def test_one_to_go_on_from_is_named_before_newer_bare_weights(run: Path, tmp_path: Path) -> None:
    path = copy(run, tmp_path)
    good = load_checkpoint(path)
    save_checkpoint(tmp_path / "best.pt", good.network, good.recipe, 4, {})
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(
        CheckpointError, match=r"is .*checkpoint\.previous\.pt \(epoch 3, step 30\)"
    ):
        load_checkpoint(path)
    (tmp_path / "checkpoint.previous.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"is .*best\.pt \(epoch 4, weights only\): pass that"
    ):
        load_checkpoint(path)


def test_alone_it_says_so(run: Path, tmp_path: Path) -> None:
    path = copy(run, tmp_path)
    (tmp_path / "checkpoint.previous.pt").write_bytes(b"broken as well")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="there is no good one beside it"):
        load_checkpoint(path)


def test_changed_bytes_are_noticed(run: Path, tmp_path: Path) -> None:
    path = copy(run, tmp_path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_file_that_holds_code_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "was run"),)

    torch.save({"state_dict": Harmful()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "was run").exists()


def test_other_content_and_missing_files(run: Path, tmp_path: Path) -> None:
    torch.save({"weights": [torch.zeros(1)]}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="holds neither a 'state_dict' of tensors nor is"):
        load_checkpoint(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match=r"absent.pt: no such file"):
        load_checkpoint(tmp_path / "absent.pt")


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    """Not what others are writing there."""
    others = {"checkpoint.pt", ".export.9.partial.pt", ".qat.9.partial.pt", ".film.partial.mp4"}
    for name in (*others, ".checkpoint.77.partial.pt", ".checkpoint.previous.77.partial.pt"):
        (tmp_path / name).write_bytes(b"half")
    remove_partial(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == others
