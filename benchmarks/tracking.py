"""Measures what our embedder is worth to a tracker: Ultralytics' BoT-SORT with it and without.

Both trackers get the same boxes, in an environment with ``ultralytics``, ``motmetrics`` and
``sa-deploy``; all settings are those of Ultralytics' ``botsort.yaml`` but camera motion, which is
off, and ``with_reid``. IDF1 and identity switches are those of motmetrics, summed over all videos.

Drawn videos, whose people cross: boxes are made of the truth, moved by a twentieth of their size;
who is covered by more than half by somebody nearer is missed, and one box of ten besides. One
world a seed::

    sa-deploy data synth world0 --cameras 4 --videos 4 --people 20 --seed 0
    python -m benchmarks.tracking run/model.onnx world0 world1 world2

Sequences of MOTChallenge, with the boxes of their ``det/det.txt``::

    python -m benchmarks.tracking run/model.onnx --mot MOT17/train
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
from numpy.typing import NDArray
from ultralytics.engine.results import Boxes
from ultralytics.trackers.bot_sort import BOTSORT
from ultralytics.utils import YAML, IterableSimpleNamespace
from ultralytics.utils.checks import check_yaml

from benchmarks.mot_sequences import frames_of, sequences, truth_of
from sa_runtime.adapters import adapter
from sa_runtime.detections.base import Detections
from sa_runtime.detections.table import read_detections
from sa_runtime.embedder import Embedder
from sa_runtime.sources.reader import VideoReader

MISSED, MOVED, COVERED = 0.1, 0.05, 0.5
KEPT_IOU = 0.5
NAMES = ("idf1", "num_switches", "mota", "num_fragmentations")

Frames = Iterator[tuple[int, NDArray[np.uint8]]]
Encoder = Callable[[Any, Any], Any]


def covered(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest part of each box that another covers which reaches lower."""
    low, high = xyxy[:, :2], xyxy[:, 2:]
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    part = np.maximum(shared, 0).prod(axis=2) / (high - low).prod(axis=1)[:, None]
    part[high[:, None, 1] >= high[None, :, 1]] = 0
    return np.asarray(part.max(axis=1, initial=0))


def seen_by_a_detector(truth: Detections, seed: int) -> Detections:
    """Boxes as a detector would give them."""
    rng = np.random.default_rng(seed)
    hidden = np.concatenate([covered(truth.xyxy[where]) for _, where in truth.groups()])
    kept = (hidden <= COVERED) & (rng.random(len(truth)) >= MISSED)
    sizes = np.tile(truth.ltwh[:, 2:], (1, 2))
    moved = truth.ltwh + rng.normal(0, MOVED, truth.ltwh.shape) * sizes
    return Detections.from_arrays(
        truth.frames[kept],
        np.concatenate([moved[:, :2], moved[:, :2] + np.maximum(moved[:, 2:], 2)], axis=1)[kept],
        confidences=(0.95 - 0.5 * hidden)[kept],
    )


def drawn(world: Path) -> Iterator[tuple[str, Detections, Detections, Callable[[], Frames]]]:
    for number, video in enumerate(sorted((world / "videos").glob("*.mp4"))):
        truth = read_detections(video.with_suffix(".gt.txt"))

        def frames(video: Path = video) -> Frames:
            with VideoReader(video) as reader:
                last = reader.announced
                for frame in reader.frames(range(1, last + 1)):
                    yield frame.number, frame.image

        yield f"{world.name}/{video.stem}", truth, seen_by_a_detector(truth, number), frames


def filmed(home: Path) -> Iterator[tuple[str, Detections, Detections, Callable[[], Frames]]]:
    for folder in sequences(home):
        boxes = read_detections(folder / "det" / "det.txt")
        yield folder.name, truth_of(folder), boxes, partial(frames_of, folder)


def tracked(boxes: Detections, frames: Frames, encoder: Encoder | None) -> dict[int, Any]:
    """Number of a frame -> (N, 5) edges and identity."""
    settings = YAML.load(check_yaml("botsort.yaml"))
    settings |= {"gmc_method": "none", "with_reid": False, "device": "cpu"}
    tracker = BOTSORT(IterableSimpleNamespace(**settings))
    if encoder is not None:
        # A model named "auto" would keep the frame from the encoder.
        tracker.args.with_reid, tracker.args.model, tracker.encoder = True, "sa-deploy", encoder
    where = dict(boxes.groups())
    found = {}
    for number, image in frames:
        part = where.get(number, slice(0, 0))
        data = np.zeros((len(boxes.frames[part]), 6), np.float32)
        data[:, :4], data[:, 4] = boxes.xyxy[part], np.clip(boxes.confidences[part], 0, 1)
        rows = np.asarray(tracker.update(Boxes(data, image.shape[:2]), image)).reshape(-1, 8)
        found[number] = rows[:, :5]
    return found


def distances_of(truth: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 less the IoU of each pair, NaN where it is too small to be a match.

    motmetrics has its own, which NumPy 2 has left behind (motmetrics 1.4).
    """
    low = np.maximum(truth[:, None, :2], found[None, :, :2])
    high = np.minimum(truth[:, None, 2:], found[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (truth, found)]
    overlap = shared / (areas[0][:, None] + areas[1][None] - shared)
    return np.asarray(np.where(overlap >= KEPT_IOU, 1 - overlap, np.nan))


def compared(truth: Detections, found: dict[int, Any]) -> motmetrics.MOTAccumulator:
    accumulator = motmetrics.MOTAccumulator(auto_id=False)
    where = dict(truth.groups())
    for number in sorted(set(where) | set(found)):
        part = where.get(number, slice(0, 0))
        rows = found.get(number, np.zeros((0, 5)))
        distances = distances_of(truth.xyxy[part], rows[:, :4])
        ids, theirs = truth.track_ids[part].tolist(), rows[:, 4].astype(int).tolist()
        accumulator.update(ids, theirs, distances, frameid=number)
    return accumulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("worlds", type=Path, nargs="*")
    parser.add_argument("--mot", type=Path, help="folder of sequences of MOTChallenge")
    arguments = parser.parse_args()
    groups = {world.name: list(drawn(world)) for world in arguments.worlds}
    if arguments.mot is not None:
        groups[arguments.mot.name] = list(filmed(arguments.mot))
    if not any(groups.values()):
        parser.error("no videos: give folders of `sa-deploy data synth`, or --mot FOLDER")
    report: dict[str, Any] = {}
    with Embedder(arguments.model) as embedder:
        encoders = {
            "without appearance": None,
            "with this embedder": adapter("ultralytics", embedder, invalid="nearest"),
        }
        for group, videos in groups.items():
            report[group] = {}
            for name, encoder in encoders.items():
                accumulators = [
                    compared(truth, tracked(boxes, frames(), encoder))
                    for _, truth, boxes, frames in videos
                ]
                table = motmetrics.metrics.create().compute_many(
                    accumulators,
                    metrics=NAMES,
                    names=[video for video, *_ in videos],
                    generate_overall=True,
                )
                whole = table.loc["OVERALL"]
                report[group][name] = {key: round(float(whole[key]), 4) for key in NAMES}
    for name in encoders:
        scores = np.array([[report[group][name][key] for key in NAMES] for group in groups])
        spread = scores.std(axis=0, ddof=1) if len(groups) > 1 else np.zeros(len(NAMES))
        report.setdefault("mean", {})[name] = {
            key: {"mean": round(float(mean), 4), "deviation": round(float(one), 4)}
            for key, mean, one in zip(NAMES, scores.mean(axis=0), spread, strict=True)
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
