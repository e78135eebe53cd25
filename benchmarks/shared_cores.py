"""Training beside others on the same cores: alone, beside one busy process, and two at once.

Run: ``python benchmarks/shared_cores.py --data-dir world [--out FILE.json]`` (some five minutes).

Every figure is of a process of its own, as the environment variables that say how long threads spin
are read when torch loads. ``own`` is what libgomp does when nothing is set (300,000 turns),
``ours`` what `sa-deploy` sets. Rounds alternate between the two.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sa_deploy.threads import SPINS
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

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
        [sys.executable, __file__, "--worker", *words],
        env=given | SETTINGS[setting],
        stdout=subprocess.PIPE,
        text=True,
    )


def rates(processes: list[subprocess.Popen[str]]) -> float:
    """Mean images a second of trainings at one time."""
    return float(np.mean([float(process.communicate()[0]) for process in processes]))


def one_round(arguments: argparse.Namespace, setting: str) -> dict[str, float]:
    """Images a second of a training in the three surroundings."""
    found = {"alone": rates([started(arguments, setting)])}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found["beside a busy process"] = rates([started(arguments, setting)])
    finally:
        busy.kill()
        busy.wait()
    found["two at once, each"] = rates([started(arguments, setting) for _ in range(2)])
    return found


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
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.rounds):
        for name, found in rounds.items():
            found.append(one_round(arguments, name))
    medians = {
        name: {place: float(np.median([r[place] for r in found])) for place in found[0]}
        for name, found in rounds.items()
    }
    result: dict[str, Any] = {
        "schema": "sa-deploy.benchmarks.shared-cores/1",
        "images_per_s": medians,
        "share_of_alone": {
            name: {place: rate / found["alone"] for place, rate in found.items()}
            for name, found in medians.items()
        },
        "ours_to_own_alone": [
            ours["alone"] / own["alone"]
            for own, ours in zip(rounds["own"], rounds["ours"], strict=True)
        ],
        "spins": SPINS,
        "rounds": arguments.rounds,
        "environment": dataclasses.asdict(this_environment(commit=True)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        with atomic_path(arguments.out) as temporary:
            temporary.write_text(text + "\n")


if __name__ == "__main__":
    main()
