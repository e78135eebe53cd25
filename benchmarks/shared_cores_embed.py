"""Embedding beside others on the same cores: alone, beside a busy process, and two at once.

Run: ``python benchmarks/shared_cores_embed.py MODEL VIDEO BOXES [--out FILE.json]`` (some four
minutes).

Every figure is of a process of its own that embeds the video again and again; rounds alternate
between the settings. ``SETTINGS`` are what was compared: how ONNX Runtime's threads wait.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.pipeline.embed import embed
from sa_runtime.runners.table import open_runner
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

SETTINGS: dict[str, dict[str, Any]] = {
    "onnxruntime, threads spin": {"runtime": "onnxruntime", "spin": True},
    "onnxruntime, threads sleep": {"runtime": "onnxruntime", "spin": False},
    "openvino": {"runtime": "openvino"},
}


def rows_per_s(arguments: argparse.Namespace, setting: dict[str, Any]) -> float:
    """Of embedding the video for some seconds, the first time not counted."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_runner(arguments.model, **setting) as runner,
    ):
        out = Path(folder) / "people.parquet"
        rows, began = 0, 0.0
        while not began or time.perf_counter() - began < arguments.seconds:
            done = embed(arguments.video, runner, out, detections=arguments.boxes).rows
            rows, began = (rows + done, began) if began else (0, time.perf_counter())
        return rows / (time.perf_counter() - began)


def started(arguments: argparse.Namespace, name: str) -> subprocess.Popen[str]:
    """A process that embeds."""
    files = [str(arguments.model), str(arguments.video), str(arguments.boxes)]
    words = ["--seconds", str(arguments.seconds), "--worker", name]
    return subprocess.Popen(
        [sys.executable, __file__, *files, *words], stdout=subprocess.PIPE, text=True
    )


def rates(processes: list[subprocess.Popen[str]]) -> float:
    """Mean rows a second of processes at one time."""
    return float(np.mean([float(process.communicate()[0]) for process in processes]))


def one_round(arguments: argparse.Namespace, name: str) -> dict[str, float]:
    """Rows a second in the three surroundings."""
    found = {"alone": rates([started(arguments, name)])}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found["beside a busy process"] = rates([started(arguments, name)])
    finally:
        busy.kill()
        busy.wait()
    found["two at once, each"] = rates([started(arguments, name) for _ in range(2)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("boxes", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(rows_per_s(arguments, SETTINGS[arguments.worker]))
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
        "schema": "sa-deploy.benchmarks.shared-cores-embed/1",
        "rows_per_s": medians,
        "share_of_alone": {
            name: {place: rate / found["alone"] for place, rate in found.items()}
            for name, found in medians.items()
        },
        "rounds": rounds,
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
