"""Real processes: one stopped at a random moment and resumed, and two that train together."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.datasets.loading import load_dataset
from sa_training.checkpoints import load_checkpoint, weights_sha256
from sa_training.evaluation import evaluate_network

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
SMALL = (
    *("train", "--dataset", "synthetic", "--recipe", "tiny", "--device", "cpu"),
    *("--height", "64", "--width", "32", "--set", "network.parts=4", "--print-freq", "1"),
)


def command(root: Path, out: Path, *more: str) -> list[str]:
    return [*SMALL, "--data-dir", str(root), "--out", str(out), *more]


def run(arguments: list[str]) -> None:
    """In this process, which has torch loaded already."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed_it_ends_with_the_same_weights(
    synthetic_root: Path, tmp_path: Path
) -> None:
    settings = [
        *("-b", "16", "--epochs", "6", "--checkpoint-steps", "1", "--evaluate-every", "0"),
        *("--set", "ema=0.99", "--set", "network.dropout=0.2"),
    ]
    run(command(synthetic_root, tmp_path / "whole", *settings))
    cut = tmp_path / "cut"
    arguments = command(synthetic_root, cut, *settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "sa_deploy", *arguments],
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (cut / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.4))
    process.send_signal(random.choice((signal.SIGKILL, signal.SIGINT)))
    assert process.wait() != 0
    stopped = load_checkpoint(cut / "checkpoint.pt").training["step"]
    assert 0 < stopped < 36
    run([*arguments, "--resume", str(cut)])
    whole, resumed = (load_checkpoint(out / "checkpoint.pt") for out in (tmp_path / "whole", cut))
    assert weights_sha256(whole.network) == weights_sha256(resumed.network), f"stopped at {stopped}"
    others = resumed.network.state_dict()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, others[name]), f"{name}, stopped at {stopped}"
    assert _losses(tmp_path / "whole") == _losses(cut)
    assert not list(cut.glob(".*.partial.pt"))


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_doubled_batch(
    synthetic_root: Path, tmp_path: Path
) -> None:
    """In two chunks, so that batch norm sees as many images at a time as in each process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "sa_deploy"]
    settings = ("--epochs", "2", "--precision", "fp32", "--set", "label_smoothing=0.0")
    one, two = tmp_path / "one", tmp_path / "two"
    doubled = ("-b", "32", "--accumulate", "2", "--evaluate-every", "0")
    run(command(synthetic_root, one, *doubled, *settings))
    together = command(synthetic_root, two, "-b", "16", "--evaluate-every", "1", *settings)
    done = subprocess.run(
        [*torchrun, *together], env=ONE_THREAD, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(_losses(two)) == 6
    assert _losses(two) == pytest.approx(_losses(one), rel=2e-3)
    assert load_checkpoint(two / "checkpoint.pt").training["order"]["batch size"] == 32

    logged = json.loads((two / "metrics.jsonl").read_text().splitlines()[-1])["mAP"]
    network = load_checkpoint(two / "checkpoint.pt").network
    alone = evaluate_network(network, load_dataset("synthetic", synthetic_root)).result.mAP
    assert logged == pytest.approx(alone, abs=1e-6)


def _losses(out: Path) -> list[float]:
    with (out / "steps.csv").open(newline="") as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]
