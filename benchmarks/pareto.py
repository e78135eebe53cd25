"""Speed against accuracy on real people: a table and a chart from one run.

Run: ``python -m benchmarks.pareto --data Market-1501 NAME=MODEL.onnx...
[--peer NAME=PROGRAM:MODEL...] [--out FILE.json] [--picture FILE.png]``.

Speed is people a second from image files to stored vectors: the query images of Market-1501,
embedded as ``sa-deploy embed`` does it, and as a plain loop of OpenCV and ONNX Runtime over the
same file, which reads, resizes and runs one batch after the other. All of them take turns, and
medians count. Accuracy is ``sa-deploy evaluate`` on the whole test set; every figure is measured in
the run but where ``--accuracy no`` leaves it out, or ``--speed no``; what was measured before
stands in the file and stays.

Any artefact with a contract may be given, also one of ``sa-deploy adopt``. A peer is a program of
``benchmarks.peer_workers`` in a process of its own, ``boxmot_reid:osnet_x0_25_msmt17.pt`` for one;
it stands in the chart where a model of the same name before the comma has an accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.bench.client import Client
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.evaluation import evaluate
from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

SCHEMA = "sa-deploy.benchmarks.pareto/1"
BATCH = 32
PLAIN = "plain ONNX Runtime"


def plain_loop(model: Path, height: int, width: int) -> Callable[[list[Path]], Embeddings]:
    """What one writes without a toolkit: files to vectors, a batch after the other."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name

    def run(paths: list[Path]) -> Embeddings:
        parts = []
        for start in range(0, len(paths), BATCH):
            images = [cv2.imread(str(path)) for path in paths[start : start + BATCH]]
            crops = np.stack([cv2.resize(image, (width, height)) for image in images])  # type: ignore[arg-type]
            parts.append(session.run(None, {given: crops})[0])
        return np.concatenate(parts)

    return run


def peer(stack: contextlib.ExitStack, said: str, paths: list[Path]) -> Callable[[], object]:
    """``PROGRAM:MODEL`` in a process of its own, which reads the files itself."""
    program, _, model = said.partition(":")
    client = stack.enter_context(
        Client((sys.executable, "-m", f"benchmarks.peer_workers.{program}"))
    )
    client.ask("open", model=model)
    names = [str(path) for path in paths]
    return lambda: client.ask("files", paths=names, batch=BATCH)


def speeds(
    models: dict[str, Path], peers: dict[str, str], paths: list[Path], rounds: int
) -> dict[str, dict[str, Any]]:
    """People a second of every contender, in turns."""
    contenders: dict[str, Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for model, path in models.items():
            runner = open_runner(path, "onnxruntime")
            stack.callback(runner.close)
            spec = runner.contract.input
            loop = plain_loop(path, spec.height, spec.width)

            def embedded(runner: BaseRunner = runner) -> object:
                return embed(list(paths), runner, folder / "out.parquet", batch_size=BATCH)

            contenders[f"{model}, embed"] = embedded
            contenders[f"{model}, {PLAIN}"] = lambda loop=loop: loop(paths)  # type: ignore[misc]
        contenders |= {name: peer(stack, said, paths) for name, said in peers.items()}
        found: dict[str, list[float]] = {contender: [] for contender in contenders}
        for number in range(rounds + 1):
            for contender, run in contenders.items():
                before = time.perf_counter()
                run()
                if number:  # the first round warms up
                    found[contender].append(len(paths) / (time.perf_counter() - before))
    return {
        contender: {
            "people_per_s": statistics.median(of),
            "rounds": [round(value, 1) for value in of],
        }
        for contender, of in found.items()
    }


def accuracies(models: dict[str, Path], data: Path) -> dict[str, dict[str, float]]:
    """mAP and rank-1 of every model on the whole test set, with the interval of mAP."""
    found = {}
    for name, path in models.items():
        report = evaluate(path, "market", data, runtime="onnxruntime")
        interval = report.intervals()["mAP"]
        found[name] = {
            "mAP": report.result.mAP,
            "mAP_low": interval.low,
            "mAP_high": interval.high,
            "rank1": report.result.rank(1),
        }
        print(name, json.dumps(found[name]), flush=True)
    return found


def rows(report: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """Contender, people a second, mAP and rank-1 in percent (NaN: not known), fastest first."""
    found = []
    for contender, speed in report.get("speed", {}).items():
        accuracy = report.get("accuracy", {}).get(contender.rsplit(", ", 1)[0], {})
        figures = (100 * accuracy.get(name, math.nan) for name in ("mAP", "rank1"))
        found.append((contender, speed["people_per_s"], *figures))
    return sorted(found, key=lambda row: -row[1])


def draw(report: dict[str, Any], path: Path) -> None:
    """People a second to the right, mAP upwards; what ``embed`` does filled, plain loops hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = [row for row in rows(report) if not math.isnan(row[2])]
    known.sort(key=lambda row: (round(row[2] / 5), row[1]))  # neighbours' names go up and down
    for index, (contender, speed, mean_precision, _) in enumerate(known):
        filled = contender.endswith(", embed")
        axes.plot(
            speed, mean_precision, "o", ms=8, color="C0" if filled else "C3",
            mfc="C0" if filled else "none",
        )  # fmt: skip
        axes.annotate(
            contender, (speed, mean_precision), fontsize=7, textcoords="offset points",
            xytext=(0, 9 if index % 2 else -14), ha="center",
        )  # fmt: skip
    axes.margins(0.2, 0.3)
    axes.set_xlabel(f"people a second, files to vectors, {report['environment']['cores']} cores")
    axes.set_ylabel(f"mAP on {report.get('accuracy_on', 'Market-1501')}, %")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.onnx")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PROGRAM:MODEL", help="may be repeated"
    )
    parser.add_argument("--images", type=int, default=1000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed", choices=("yes", "no"), default="yes")
    parser.add_argument("--accuracy", choices=("yes", "no"), default="yes")
    parser.add_argument("--out", type=Path, default=Path("pareto.json"))
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    models = {name: Path(path) for name, _, path in (m.partition("=") for m in arguments.models)}
    peers = {name: said for name, _, said in (p.partition("=") for p in arguments.peer)}
    report: dict[str, Any] = {"schema": SCHEMA}
    if arguments.out.is_file():
        report = json.loads(arguments.out.read_text())
    if arguments.speed == "yes":
        paths = sorted((arguments.data / "query").glob("*.jpg"))[: arguments.images]
        report["images"] = len(paths)
        report["speed"] = speeds(models, peers, paths, arguments.rounds)
        report["load_average"] = os.getloadavg()[0]
        report["environment"] = dataclasses.asdict(this_environment(commit=True))
        report["date"] = time.strftime("%Y-%m-%d")
    if arguments.accuracy == "yes":
        report["accuracy"] = report.get("accuracy", {}) | accuracies(models, arguments.data)
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    for contender, speed, mean_precision, rank1 in rows(report):
        print(f"{contender:44} {speed:7.1f}/s  mAP {mean_precision:5.2f}  rank-1 {rank1:5.2f}")
    if arguments.picture is not None:
        draw(report, arguments.picture)


if __name__ == "__main__":
    main()
