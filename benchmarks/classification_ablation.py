"""GAP against GAP with spatial attention, for classification, on the generated problem.

Run: ``python benchmarks/classification_ablation.py [--out FILE.json]``.

Every seed trains one network for each way of pooling, from the same weights, on the same images in
the same order with the same augmentation; only the pooling differs, so differences are taken seed
by seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from sa_runtime.attention_pool import Normalize
from sa_runtime.system.environment import cores
from sa_runtime.system.files import atomic_path
from sa_training.classification import train_classifier
from sa_training.classification_data import synthetic_classification
from sa_training.loop import Progress, TrainingOptions
from sa_training.network import Attention
from sa_training.recipes import Recipe, cifar100_gap

POOLINGS: dict[str, tuple[Attention, Normalize]] = {
    "GAP": ("none", "sum"),
    "SA (sum) + GAP": ("backbone", "sum"),
    "SA (softmax) + GAP": ("backbone", "softmax"),
}


def recipe_of(pooling: str, arguments: argparse.Namespace) -> Recipe:
    """The recipe of CIFAR-100, shortened; no flips, since they turn one texture into another."""
    attention, normalize = POOLINGS[pooling]
    base = cifar100_gap()
    network = dataclasses.replace(
        base.network, backbone=arguments.backbone, attention=attention, normalize=normalize
    )
    return dataclasses.replace(
        base,
        name=pooling,
        network=network,
        epochs=arguments.epochs,
        lr=arguments.lr,
        batch=arguments.batch,
        warmup=0.1,
        pad=2,
        flip=0.0,
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "sd": deviation}


def summary(results: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """For each pooling its figures, and what it gains over GAP seed by seed."""
    gap = results["GAP"]["top1"]
    return {
        pooling: {
            "top1": spread(figures["top1"]),
            "top5": spread(figures["top5"]),
            "gain": spread([one - other for one, other in zip(figures["top1"], gap, strict=True)]),
            "images_per_s": statistics.mean(figures["images_per_s"]),
        }
        for pooling, figures in results.items()
    }


def measure(job: tuple[str, int, argparse.Namespace]) -> tuple[str, dict[str, float]]:
    """Train and test one network."""
    pooling, seed, arguments = job
    torch.set_num_threads(arguments.threads)
    train, test = (
        synthetic_classification(arguments.classes, images, seed=data_seed)
        for data_seed, images in enumerate((arguments.images, arguments.test_images))
    )
    states: list[Progress] = []
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(out=Path(folder), seed=seed, precision=arguments.precision)
        chosen = recipe_of(pooling, arguments)
        run = train_classifier(chosen, train, test, options, on_step=states.append)
    figures = {**dataclasses.asdict(run.accuracy), "images_per_s": states[-1].images_per_s}
    print(f"seed {seed}  {pooling:20} top-1 {run.accuracy.top1:.4f}", flush=True)
    return pooling, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--images", type=int, default=300, help="of each class, to train on")
    parser.add_argument("--test-images", type=int, default=150, help="of each class")
    parser.add_argument("--backbone", default="resnet14-32")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--processes", type=int, default=2, help="networks trained at once")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    jobs = [(pooling, seed, arguments) for seed in seeds for pooling in POOLINGS]
    results: dict[str, dict[str, list[float]]] = {
        pooling: {"top1": [], "top5": [], "images_per_s": []} for pooling in POOLINGS
    }
    began = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=spawn) as pool:
        for pooling, figures in pool.map(measure, jobs):
            for name, value in figures.items():
                results[pooling][name].append(value)
    seconds = time.perf_counter() - began
    found = summary(results)
    print_table(found)
    print(f"\n{seconds:.0f} s")
    report = {
        "schema": "sa-deploy.benchmarks.classification_ablation/1",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": cores(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "arguments": {k: v for k, v in vars(arguments).items() if k != "out"},
        "seconds": seconds,
        "results": results,
        "summary": found,
    }
    if arguments.out is not None:
        with atomic_path(arguments.out) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


def print_table(found: dict[str, Any]) -> None:
    """The summary as a Markdown table."""
    print("\n| pooling | top-1 % | top-5 % | top-1 over GAP, same seed |\n|---|---|---|---|")
    for pooling, row in found.items():
        cells = [
            f"{100 * row[name]['mean']:{sign}.1f} ± {100 * row[name]['sd']:.1f}"
            for name, sign in (("top1", ""), ("top5", ""), ("gain", "+"))
        ]
        print(f"| {' | '.join([pooling, *cells])} |")


if __name__ == "__main__":
    main()
