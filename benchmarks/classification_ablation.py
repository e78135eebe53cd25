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
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sa_runtime.attention_pool import Normalize
from sa_runtime.files import atomic_path
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--images", type=int, default=200, help="of each class, to train on")
    parser.add_argument("--test-images", type=int, default=100, help="of each class")
    parser.add_argument("--backbone", default="resnet14-32")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    train = synthetic_classification(arguments.classes, arguments.images, seed=0)
    test = synthetic_classification(arguments.classes, arguments.test_images, seed=1)
    results: dict[str, dict[str, list[float]]] = {
        pooling: {"top1": [], "top5": [], "images_per_s": []} for pooling in POOLINGS
    }
    began = time.perf_counter()
    for seed in seeds:
        for pooling, figures in results.items():
            states: list[Progress] = []
            with tempfile.TemporaryDirectory() as folder:
                options = TrainingOptions(
                    out=Path(folder), seed=seed, precision=arguments.precision
                )
                chosen = recipe_of(pooling, arguments)
                run = train_classifier(chosen, train, test, options, on_step=states.append)
            figures["top1"].append(run.accuracy.top1)
            figures["top5"].append(run.accuracy.top5)
            figures["images_per_s"].append(states[-1].images_per_s)
            took = time.perf_counter() - began
            print(
                f"seed {seed}  {pooling:20} top-1 {run.accuracy.top1:.4f}  {took:.0f} s", flush=True
            )
    found = summary(results)
    print("\n| pooling | top-1 % | top-5 % | top-1 over GAP, same seed |\n|---|---|---|---|")
    for pooling, row in found.items():
        top1, top5, gain = (
            {k: 100 * v for k, v in row[name].items()} for name in ("top1", "top5", "gain")
        )
        print(
            f"| {pooling} | {top1['mean']:.1f} ± {top1['sd']:.1f} | {top5['mean']:.1f} ± "
            f"{top5['sd']:.1f} | {gain['mean']:+.1f} ± {gain['sd']:.1f} |"
        )
    report = {
        "schema": "sa-deploy.benchmarks.classification_ablation/1",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "arguments": {k: v for k, v in vars(arguments).items() if k != "out"},
        "seconds": time.perf_counter() - began,
        "results": results,
        "summary": found,
    }
    if arguments.out is not None:
        with atomic_path(arguments.out) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
