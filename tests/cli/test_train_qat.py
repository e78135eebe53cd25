"""``sa-deploy train --qat`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_runtime.errors import InputError
from sa_training.checkpoints import load_checkpoint, weights_sha256


def run(root: Path, *arguments: object) -> Result:
    words = ["train", "-d", "synthetic", "--data-dir", root, "--qat", "--device", "cpu"]
    return CliRunner().invoke(app, [*map(str, words), *map(str, arguments)])


def test_a_checkpoint_is_fine_tuned_and_tested_in_float_and_int8(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    words = ["--resume", tiny_checkpoint, "--out", tmp_path, "--epochs", 1, "-b", 32]
    done = run(synthetic_root, *words, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["recipe"] == "tiny+qat"
    assert list(found["test"]) == ["before, float", "before, int8", "after, float", "after, int8"]
    assert found["test"]["before, float"] != found["test"]["before, int8"]
    tuned = load_checkpoint(tmp_path / "qat.pt")
    before = load_checkpoint(tiny_checkpoint)
    assert found["weights_sha256"] == weights_sha256(tuned.network)
    assert weights_sha256(tuned.network) != weights_sha256(before.network)


def test_without_a_checkpoint_or_people_it_says_what_it_needs(
    tiny_checkpoint: Path, synthetic_root: Path
) -> None:
    done = run(synthetic_root)
    assert isinstance(done.exception, InputError)
    assert "--qat: expected --resume FILE, the checkpoint to fine-tune" in str(done.exception)
