"""Trainings on Market-1501, several side by side on one GPU, evaluated as they end.

A stand-in for hours of two cores: the epochs of a run are those that fit such an hour at the speed
measured there, so that recipes can be compared in minutes. The images are decoded once, into a file
that all runs map. Every run writes ``NAME.json``: changes, mAP and rank-1 by the embeddings
``parts`` and ``reduced``, the losses by epoch, the machine::

    python -m benchmarks.market_runs --data Market-1501 --weights mobilenet_v2.pt --out runs \\
        [--plan runs.json] [--jobs 8] [--seconds 600]

Needs Market-1501 and ImageNet weights of MobileNetV2, which the repository does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "sa-deploy.benchmarks.market-runs/1"
SIZES = ((160, 80), (256, 128))
HOUR = {"recipe": "hour", "epochs": 24}
PLAN: list[dict[str, Any]] = [
    {
        **HOUR,
        "name": "teacher-256",
        "epochs": 40,
        "changes": {
            "network.height": 256,
            "network.width": 128,
            "network.parts": 4,
            "growing": "128x64:0.4,192x96:0.7",
        },
    },
    {**HOUR, "name": "hour"},
    {**HOUR, "name": "parts-1", "changes": {"network.parts": 1}},
    {**HOUR, "name": "parts-4", "changes": {"network.parts": 4}},
    {**HOUR, "name": "fixed-size", "epochs": 18, "changes": {"growing": ""}},
    {**HOUR, "name": "lr-2", "changes": {"lr": 2.8e-3}},
    {
        **HOUR,
        "name": "larger",
        "epochs": 18,
        "changes": {
            "network.height": 192,
            "network.width": 96,
            "network.parts": 2,
            "growing": "96x48:0.4,144x72:0.75",
        },
    },
    {**HOUR, "name": "no-ema", "changes": {"ema": 0.0}},
    {**HOUR, "name": "gap", "changes": {"network.attention": "none"}},
    {
        "name": "nothing-growing",
        "recipe": "cpu",
        "epochs": 10,
        "changes": {"growing": "96x48:0.5"},
    },
    {"name": "nothing", "recipe": "cpu", "epochs": 8},
]
"""What is tried where no plan is given, the longest first. Seeds are 1."""


def decoded(data: Path, folder: Path, size: tuple[int, int]) -> Path:
    """The training images at a size, (N, H, W, 3) uint8 BGR in a file."""
    from sa_runtime.crops import resize
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.decoding import read_image

    path = folder / f"train-{size[0]}x{size[1]}.npy"
    if not path.is_file():
        train = load_dataset("market", data).train
        images = np.stack([resize(read_image(sample.path), *size) for sample in train])
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, images)
        partial.rename(path)
    return path


def train_one(run: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate; what the file of the run holds."""
    import torch

    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.system.environment import this_environment
    from sa_training.data import ArrayImages
    from sa_training.evaluation import evaluate_network
    from sa_training.loop import fit
    from sa_training.optimisation import autocast_type, resolve_device
    from sa_training.options import Progress, TrainingOptions, TrainingSet
    from sa_training.overrides import override
    from sa_training.recipes import recipe as recipe_by_name
    from sa_training.teacher import teacher_of
    from sa_training.watch import read_epochs

    torch.set_num_threads(2)
    dataset = load_dataset("market", arguments.data)
    chosen = recipe_by_name(run["recipe"])
    changes = {"epochs": run["epochs"], **run.get("changes", {})}
    if run["recipe"] != "cpu":
        changes.setdefault("pretrained", str(arguments.weights))
    chosen = override(chosen, changes)
    size = chosen.network.height, chosen.network.width
    images = np.load(decoded(arguments.data, arguments.out, size), mmap_mode="r")
    training = TrainingSet(
        name="market", images=ArrayImages(images), labels=dataset.train_labels().tolist()
    )
    device = resolve_device("auto")
    out = arguments.out / run["name"]
    options = TrainingOptions(
        out=out, seed=run.get("seed", 1), workers=arguments.workers, max_steps=arguments.max_steps
    )
    teacher = None
    if "teacher" in run:
        path = arguments.out / run["teacher"] / "checkpoint.pt"
        teacher = teacher_of(path, training, device)
    began = time.perf_counter()
    last: list[Progress] = []

    def on_step(state: Progress) -> None:
        last[:] = [state]

    checkpoint = fit(chosen, training, options, teacher=teacher, on_step=on_step)
    seconds = time.perf_counter() - began
    while not (arguments.data / "bounding_box_test").is_dir():
        time.sleep(1)
    dataset = load_dataset("market", arguments.data)
    compute = autocast_type("auto", device)
    network = checkpoint.network.to(device).eval()
    figures = {}
    for embedding in ("parts", "reduced"):
        result = evaluate_network(network, dataset, embedding=embedding, compute=compute).result
        figures[embedding] = {"mAP": result.mAP, "rank1": result.rank(1)}
    return {
        "schema": SCHEMA,
        **run,
        "figures": figures,
        "train_seconds": seconds,
        "steps": last[0].step,
        "recipe_fields": checkpoint.recipe.to_dict(),
        "epochs_log": [
            {key: epoch[key] for key in ("epoch", "loss", "accuracy")} for epoch in read_epochs(out)
        ],
        "commit": arguments.commit,
        "environment": dataclasses.asdict(this_environment()),
    }


def run_all(plan: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Runs of a plan, ``--jobs`` at a time, each after what it needs; none begins too late."""
    waiting = list(plan)
    running: dict[str, subprocess.Popen[bytes]] = {}
    end = time.monotonic() + arguments.seconds
    while waiting or running:
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                print(f"{name}: exit {process.returncode}", flush=True)
        for run in list(waiting):
            needs = run.get("teacher")
            ready = needs is None or (arguments.out / f"{needs}.json").is_file()
            if len(running) < arguments.jobs and ready and time.monotonic() < end:
                waiting.remove(run)
                running[run["name"]] = _start(run, arguments)
        if time.monotonic() > end or not running:  # too late, or what is needed failed
            waiting.clear()
        time.sleep(0.5)


def _start(run: dict[str, Any], arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    log = (arguments.out / f"{run['name']}.log").open("wb")
    own = [sys.executable, "-m", "benchmarks.market_runs", "--one", json.dumps(run)]
    given = {
        "--data": arguments.data,
        "--weights": arguments.weights,
        "--out": arguments.out,
        "--workers": arguments.workers,
        "--commit": arguments.commit,
        **({} if arguments.max_steps is None else {"--max-steps": arguments.max_steps}),
    }
    words = [str(word) for pair in given.items() for word in pair]
    return subprocess.Popen([*own, *words], stdout=log, stderr=log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", type=Path, help="JSON list of runs; the module's by default")
    parser.add_argument("--one", help="train this run, given as JSON, in this process")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="after which none begins")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--commit", default="")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.one is not None:
        run = json.loads(arguments.one)
        found = train_one(run, arguments)
        path = arguments.out / f"{run['name']}.json"
        path.with_suffix(".partial").write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".partial").rename(path)
        return
    for size in SIZES:
        decoded(arguments.data, arguments.out, size)
    plan = json.loads(arguments.plan.read_text()) if arguments.plan else PLAN
    run_all(plan, arguments)


if __name__ == "__main__":
    main()
