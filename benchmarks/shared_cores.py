"""Training beside others on the same cores: alone, beside one busy process, and two at once.

Run: ``python -m benchmarks.shared_cores --data-dir world [--out FILE.json]`` (some five minutes).

Every figure is of a process of its own, as the environment variables that say how long threads spin
are read when torch loads. ``own`` is what libgomp does when nothing is set (300,000 turns),
``ours`` what `sa-deploy` sets. Rounds alternate between the two.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.record import record
from benchmarks.surroundings import in_turns
from sa_deploy.threads import SPINS

SETTINGS = {"own": {"GOMP_SPINCOUNT": "300000"}, "ours": {"GOMP_SPINCOUNT": str(SPINS)}}
WARM_UP = 8


class _EnoughError(Exception):
    """The time is over."""


def train(data_dir: Path, seconds: float) -> float:
    """Images a second of recipe ``tiny`` in FP32, after a few steps that do not count."""
    from sa_training.loop import fit
    from sa_training.options import Progress, TrainingOptions
    from sa_training.recipes import tiny
    from sa_training.tasks import load_task

    recipe = dataclasses.replace(tiny(), epochs=10_000)
    training = load_task("synthetic", data_dir).training(recipe, keep=True)
    began, steps = 0.0, 0

    def on_step(state: Progress) -> None:
        nonlocal began, steps
        if state.step == WARM_UP:
            began = time.perf_counter()
        elif state.step > WARM_UP:
            steps = state.step - WARM_UP
            if time.perf_counter() - began > seconds:
                raise _EnoughError

    with tempfile.TemporaryDirectory() as out:
        options = TrainingOptions(out=Path(out), precision="fp32", device="cpu")
        try:
            fit(recipe, training, options, on_step=on_step)
        except _EnoughError:
            return steps * recipe.batch / (time.perf_counter() - began)
    raise RuntimeError("the training ended before its time")


def started(arguments: argparse.Namespace, setting: str) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    words = ["--data-dir", str(arguments.data_dir), "--seconds", str(arguments.seconds)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.shared_cores", "--worker", *words],
        env=given | SETTINGS[setting],
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="a synthetic data set")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(train(arguments.data_dir, arguments.seconds))
        return
    found = in_turns(SETTINGS, partial(started, arguments), arguments.rounds)
    rounds = found["rounds"]
    found["ours_to_own_alone"] = [
        ours["alone"] / own["alone"]
        for own, ours in zip(rounds["own"], rounds["ours"], strict=True)
    ]
    record("shared-cores/2", {"unit": "images/s", "spins": SPINS, **found}, arguments.out)


if __name__ == "__main__":
    main()
