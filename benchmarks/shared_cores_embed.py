"""Embedding beside others on the same cores: alone, beside a busy process, and two at once.

Run: ``python -m benchmarks.shared_cores_embed MODEL VIDEO BOXES [--out FILE.json]`` (some four
minutes).

Every figure is of a process of its own that embeds the video again and again; rounds alternate
between the settings. ``SETTINGS`` are what was compared: how ONNX Runtime's threads wait.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import record
from benchmarks.surroundings import in_turns
from sa_runtime.pipeline.embed import embed
from sa_runtime.runners.opening import open_runner

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
        [sys.executable, "-m", "benchmarks.shared_cores_embed", *files, *words],
        stdout=subprocess.PIPE,
        text=True,
    )


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
    found = in_turns(SETTINGS, partial(started, arguments), arguments.rounds)
    record("shared-cores-embed/2", {"unit": "rows/s", **found}, arguments.out)


if __name__ == "__main__":
    main()
