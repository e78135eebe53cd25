"""``sa-deploy ablate`` as users call it, killed in its middle and called again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import InputError

SMALL = (
    *("--recipes", "tiny", "--vary", "network.attention=none,both", "--seeds", "0,1"),
    *("-d", "synthetic", "--height", "32", "--width", "16", "-b", "16", "--epochs", "4"),
    *("--set", "network.parts=2", "--set", "network.features=16", "--set", "pad=2"),
    *("--device", "cpu", "--precision", "fp32"),
)
ROWS = ("tiny@attention=none", "tiny@attention=both")


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return ["ablate", *SMALL, "--data-dir", str(root), "--out", str(out), *more]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For a tiny network one thread is faster than two that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a series that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    done = CliRunner().invoke(app, arguments(synthetic_root, out), catch_exceptions=False)
    assert done.exit_code == 0
    return out


def start(root: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sa_deploy", *arguments(root, out, "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def learnt(path: Path) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions, by run."""
    runs = json.loads(path.read_text())["runs"]
    keys = ("variant", "seed", "figures", "steps", "weights_sha256", "settings_sha256")
    return [tuple(run[key] for key in keys) for run in runs]


def test_killed_and_called_again_it_gives_the_same_table(
    whole: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    first = tmp_path / ROWS[0] / "seed-0" / "result.json"
    second = tmp_path / ROWS[1] / "seed-0"
    process = start(synthetic_root, tmp_path)
    until = time.monotonic() + 60
    while not (second / "checkpoint.pt").is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (second / "result.json").exists()
    assert not (tmp_path / "ablation.json").exists()
    finished = first.read_bytes()
    epoch = (second / "metrics.jsonl").read_text().splitlines()[0]

    done = CliRunner().invoke(
        app, arguments(synthetic_root, tmp_path, "--json"), catch_exceptions=False
    )
    assert done.stderr.count("finished before") == 1
    assert first.read_bytes() == finished
    # The line holds a measured rate: an epoch that was trained twice would differ.
    assert (second / "metrics.jsonl").read_text().splitlines()[0] == epoch
    assert learnt(tmp_path / "ablation.json") == learnt(whole / "ablation.json")
    assert (
        json.loads(done.stdout)["recipes"]
        == json.loads((tmp_path / "ablation.json").read_text())["recipes"]
    )


def test_the_table_and_the_files_agree(
    whole: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(app, arguments(synthetic_root, whole), catch_exceptions=False)
    assert done.stderr.count("finished before") == 4
    with (whole / "ablation.csv").open(newline="") as lines:
        runs = list(csv.DictReader(lines))
    assert [(run["recipe"], run["seed"]) for run in runs] == [
        (row, seed) for seed in ("0", "1") for row in ROWS
    ]
    maps = {row: [float(r["mAP"]) for r in runs if r["recipe"] == row] for row in ROWS}
    for a, b in maps.values():
        assert a != b
        mean, deviation = 50 * (a + b), 100 * abs(a - b) / 2**0.5
        assert f"{mean:.2f} ± {deviation:.2f}" in done.stdout
    difference = 50 * (sum(maps[ROWS[1]]) - sum(maps[ROWS[0]]))
    assert f"{difference:+.2f} (" in done.stdout
    for row in json.loads((whole / "ablation.json").read_text())["recipes"]:
        assert row["figures"]["mAP"]["values"] == maps[row["variant"]]
        assert list(row["figures"]) == ["mAP", "rank1", "rank5", "rank10"]


def test_other_settings_are_not_mixed_in(whole: Path, synthetic_root: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"seed-0: its run had lr 0\.003, this one 0\.1; pass the options of then, another "
        r"`out`, or remove the folder to train it again",
    ):
        CliRunner().invoke(
            app,
            arguments(synthetic_root, whole, "--set", "lr=0.1"),
            catch_exceptions=False,
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--seeds", "0,0"), r"--seeds '0,0': expected different whole numbers, for example 0,1,2"),
        (("--seeds", "one"), r"--seeds 'one': expected different whole numbers"),
        (("--recipes", "tiny,"), r"--recipes 'tiny,': expected values joined by commas, none of"),
        (("--recipes", "huge"), r"recipe='huge': unknown; choose from sa, paper"),
        (("--recipes", "tiny,tiny"), r"recipe tiny@attention=none: listed twice; leave one"),
        (("--vary", "erase"), r"--vary erase: expected FIELD=VALUE, each field once, for example"),
        (("--vary", "network.attention=all"), r"--vary network.attention=all: expected FIELD"),
        (("--vary", "erases=0,1"), r"recipe field 'erases': unknown; choose from name, batch"),
        (("--set", "erase"), r"--set erase: expected FIELD=VALUE, .* --set erase=0\.5"),
    ],
)
def test_mistakes_end_before_anything_is_trained(
    wrong: tuple[str, ...], message: str, synthetic_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, arguments(synthetic_root, out, *wrong), catch_exceptions=False)
    assert not out.exists()


def test_it_does_not_run_under_torchrun(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"in one process; start it without torchrun, or train"):
        CliRunner().invoke(app, arguments(synthetic_root, tmp_path), catch_exceptions=False)
