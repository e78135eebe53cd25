"""How close embedding a video comes to bare inference, and whether its memory stays flat.

Run: ``python benchmarks/embed_throughput.py MODEL.onnx... [--runtime NAME] [--out FILE.json]``.

A synthetic video is rendered once, looped, and embedded as ``sa-deploy embed`` does it: decode,
crop, inference and writing overlapped. Bare inference is ``run_stream`` of the same runner over the
same crops, cut beforehand. The two alternate in one process and medians are compared.

Decoding needs a processor as inference does. ``core_ratio`` compares the core seconds of both
instead of those of the clock: it is the ratio where inference keeps every core busy, and other
processes on the machine change it little. ``ceiling`` is what it would be if decoding, cropping and
writing cost what they cost by themselves and joining them cost nothing. Where other processes were
there, ``load_average``, of the last minute, exceeds the number of cores.

``--memory N`` instead embeds N crops in one go and samples the resident memory (Linux only).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Images
from sa_runtime.datasets.synthetic.config import SyntheticConfig
from sa_runtime.datasets.synthetic.video import frames
from sa_runtime.items import Row
from sa_runtime.outputs.parquet import EmbeddingWriter
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedProgress
from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.opening import open_runner
from sa_runtime.sources.base import ItemStream
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import find_sources
from sa_runtime.sources.video import VideoSource
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

SCHEMA = "sa-deploy.benchmarks.embed-throughput/1"
RENDERED = SyntheticConfig(
    seed=6, identities=40, cameras=2, images_per_camera=2, distractors=0, junk=0, videos=1,
    video_seconds=5.0, people_per_video=8, frame_width=1280, frame_height=720,
)  # fmt: skip
"""60 frames; about 7 of the 8 people are seen in each."""
WARM_UP = 0.1
"""Share of the crops before memory counts: allocators, decoders and the ring fill their pools."""


def make_video(folder: Path, rows: int) -> VideoSource:
    """A video of at least so many boxes: the rendered frames forwards and backwards, looped."""
    shown = list(frames(RENDERED, 0))
    shown += shown[-2:0:-1]
    path = folder / "long.mp4"
    size = (RENDERED.frame_width, RENDERED.frame_height)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RENDERED.fps, size)
    lines: list[str] = []
    number = 0
    while len(lines) < rows:
        image, people = shown[number % len(shown)]
        number += 1
        writer.write(image)
        for truth in people:
            b = truth.box
            lines.append(f"{number},{truth.person},{b.left},{b.top},{b.width},{b.height},1\n")
    writer.release()
    boxes = folder / "long.txt"
    boxes.write_text("".join(lines))
    (video,) = find_sources([path], [boxes])
    assert isinstance(video, VideoSource)
    return video


def first_rows(video: VideoSource, rows: int) -> VideoSource:
    """The video with the boxes of its first frames only: decoding stops after them."""
    found = video.detections
    last = found.frames[min(rows, len(found)) - 1]
    kept = found.frames <= last
    cut = dataclasses.replace(
        found,
        frames=found.frames[kept],
        track_ids=found.track_ids[kept],
        ltwh=found.ltwh[kept],
        confidences=found.confidences[kept],
    )
    return VideoSource(path=video.path, detections=cut)


def embedded(runner: BaseRunner, video: VideoSource, folder: Path, batch: int) -> dict[str, float]:
    """Embed into a file; seconds of the whole and of each stage."""
    start, cpu = time.perf_counter(), time.process_time()
    result = embed(video, runner, folder / "out.parquet", batch_size=batch).timing
    return {
        "rows": result.rows,
        "seconds": time.perf_counter() - start,
        "core_seconds": time.process_time() - cpu,
        "decode": result.decode_s,
        "crop": result.crop_s,
        "inference": result.inference_s,
        "write": result.write_s,
    }


def bare(runner: BaseRunner, batches: Sequence[Images]) -> tuple[float, float, list[Embeddings]]:
    """Seconds of inference alone, of the clock and of cores, and the vectors."""
    start, cpu = time.perf_counter(), time.process_time()
    vectors = list(runner.run_stream(batches))
    return time.perf_counter() - start, time.process_time() - cpu, vectors


def stages_alone(
    video: VideoSource, height: int, width: int, batch: int
) -> tuple[dict[str, float], list[Images], list[Row]]:
    """Core seconds of decoding and of cropping by themselves; the batches; the rows."""
    rows: list[Row] = []
    pieces: list[Images] = []
    decode = crop = 0.0
    items = ItemStream([video])
    while True:
        before = time.process_time()
        item = next(items, None)
        after = time.process_time()
        decode += after - before
        if item is None:
            break
        pieces.append(crops.crop_batch(item.image, item.boxes, height, width))
        crop += time.process_time() - after
        rows.extend(item.rows)
    whole = np.concatenate(pieces)
    batches = [whole[start : start + batch] for start in range(0, len(whole), batch)]
    return {"decode": decode, "crop": crop}, batches, rows


def throughput(
    runner: BaseRunner, video: VideoSource, folder: Path, *, batch: int, rounds: int
) -> dict[str, Any]:
    """Embedding against bare inference, alternating."""
    spec = runner.contract.input
    alone, batches, rows = stages_alone(video, spec.height, spec.width, batch)
    *_, vectors = bare(runner, batches)
    embedded(runner, video, folder, batch)
    before = time.process_time()
    with EmbeddingWriter(folder / "out.parquet", runner.contract) as writer:
        for start, part in zip(range(0, len(rows), batch), vectors, strict=True):
            writer.write(rows[start : start + batch], part)
    alone["write"] = time.process_time() - before
    runs: list[dict[str, float]] = []
    bare_s: list[float] = []
    bare_core_s: list[float] = []
    for _ in range(rounds):
        seconds, core_seconds, _ = bare(runner, batches)
        bare_s.append(seconds)
        bare_core_s.append(core_seconds)
        runs.append(embedded(runner, video, folder, batch))
    inference = statistics.median(bare_s)
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    core_s = statistics.median(bare_core_s)
    return {
        "crops": len(rows),
        "frames": len({row.frame for row in rows}),
        "batch": batch,
        "rounds": rounds,
        "bare_crops_per_s": len(rows) / inference,
        "embed_crops_per_s": len(rows) / middle["seconds"],
        "ratio": inference / middle["seconds"],
        "ratios": [b / run["seconds"] for b, run in zip(bare_s, runs, strict=True)],
        "core_ratio": core_s / middle["core_seconds"],
        "ceiling": core_s / (core_s + sum(alone.values())),
        "bare_s": inference,
        "bare_core_s": core_s,
        "embed_s": middle["seconds"],
        "embed_core_s": middle["core_seconds"],
        "busy_s": {key: middle[key] for key in ("decode", "crop", "inference", "write")},
        "alone_core_s": alone,
    }


def memory(runner: BaseRunner, video: VideoSource, folder: Path, *, batch: int) -> dict[str, Any]:
    """Resident memory while the whole video is embedded."""
    samples: list[tuple[int, float]] = []

    def sample(state: EmbedProgress) -> None:
        if not samples or state.rows >= samples[-1][0] + 500:
            samples.append((state.rows, resident_mib()))

    start = time.perf_counter()
    result = embed(
        video, runner, folder / "out.parquet", batch_size=batch, on_progress=sample
    ).timing
    seconds = time.perf_counter() - start
    table = np.array([sample for sample in samples if sample[0] >= WARM_UP * result.rows])
    half = len(table) // 2
    return {
        "crops": result.rows,
        "crops_per_s": result.rows / seconds,
        "after_warm_up_mib": table[0, 1],
        "max_mib": table[:, 1].max(),
        "first_half_mean_mib": table[:half, 1].mean(),
        "second_half_mean_mib": table[half:, 1].mean(),
        "slope_mib_per_100k_crops": np.polyfit(table[:, 0], table[:, 1], 1)[0] * 100_000,
        "samples": [[rows, round(mib, 1)] for rows, mib in samples[:: max(len(samples) // 40, 1)]],
    }


def resident_mib() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS; expected Linux")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runtime", action="append", help="onnxruntime and openvino by default")
    parser.add_argument("--crops", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", type=int, metavar="CROPS")
    parser.add_argument("--video", type=Path, help="FILE.mp4 made before, with FILE.txt beside it")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE of the runner")
    parser.add_argument("--out", type=Path, help="JSON to write; runs already in it stay")
    arguments = parser.parse_args()
    wanted = arguments.memory or arguments.crops
    options = dict(pair.split("=", 1) for pair in arguments.option)
    with tempfile.TemporaryDirectory() as name, quiet_opencv():
        folder = Path(name)
        if arguments.video is None:
            video = make_video(folder, wanted)
        else:
            (found,) = find_sources([arguments.video], [arguments.video.with_suffix(".txt")])
            assert isinstance(found, VideoSource)
            video = found
        video = first_rows(video, wanted)
        for model in arguments.models:
            for runtime in arguments.runtime or ["onnxruntime", "openvino"]:
                with open_runner(model, runtime, **options) as runner:
                    if arguments.memory:
                        figures = memory(runner, video, folder, batch=arguments.batch)
                    else:
                        figures = throughput(
                            runner, video, folder, batch=arguments.batch, rounds=arguments.rounds
                        )
                    contract, label = runner.contract, runner.label
                figures["load_average"] = os.getloadavg()[0]
                size = f"{contract.input.height}x{contract.input.width}"
                key = f"{contract.network['backbone']} {size}, {label}"
                key += ", memory" if arguments.memory else ""
                shown = {key: value for key, value in figures.items() if key != "samples"}
                print(f"{key}\n{json.dumps(_rounded(shown), indent=1)}", flush=True)
                if arguments.out is not None:
                    _add(arguments.out, key, {"options": options, **figures})


def _add(path: Path, key: str, figures: dict[str, Any]) -> None:
    report: dict[str, Any] = {"schema": SCHEMA, "results": {}}
    if path.is_file():
        report = json.loads(path.read_text())
    report["machine"] = dataclasses.asdict(this_environment(commit=True))
    report["results"][key] = _rounded(figures)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
