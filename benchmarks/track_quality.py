"""Measures what the quality of boxes is worth: tracks by all crops, by their best, by random ones.

Videos and truth are those of ``sa-deploy data synth``, where a track's id is its person; every
world has a seed of its own. Every box is embedded once, with its quality; the vector of a track is
that of ``embed --tracks``, or the mean of some of its crops. Each is looked for among those of
the other cameras; figures are means over the worlds with their standard deviation::

    for seed in 0 1 2; do
      sa-deploy data synth world$seed --cameras 4 --videos 4 --people 20 --seed $seed
    done
    python benchmarks/track_quality.py run/model.onnx world0 world1 world2

``--shake`` blurs every other frame, drawn, as a moving camera does, by 3 to 17 pixels. Sharpness is
the variance of the Laplacian of a crop at the size of the network, over itself and the median.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.crops import crop_batch
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_vectors
from sa_runtime.sources.reader import VideoReader

COUNTS = (1, 2, 4, 8)
DRAWS = 20
LONGEST_BLUR = 17

Choice = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Some rows of a track, of all of them."""


def shaken(video: Path, folder: Path, seed: int) -> Path:
    """A copy of a video in which half of the frames are blurred along a line."""
    rng = np.random.default_rng(seed)
    target = folder / video.name
    with VideoReader(video) as reader:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(target), code, reader.fps, reader.size)
        for frame in reader.frames(range(1, reader.announced + 1)):
            image = frame.image
            if rng.random() < 0.5:
                size = int(rng.integers(3, LONGEST_BLUR + 1))
                angle, middle = rng.uniform(0, np.pi), (size - 1) / 2
                reach = np.array([np.cos(angle), np.sin(angle)]) * middle
                ends = [tuple(np.rint(middle + sign * reach).astype(int)) for sign in (-1, 1)]
                kernel = np.zeros((size, size), np.float32)
                cv2.line(kernel, ends[0], ends[1], (1.0,))
                image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
            writer.write(image)
        writer.release()
    return target


def sharpness(stored: StoredEmbeddings) -> NDArray[np.float64]:
    """(N,) variances of the Laplacian of the crops."""
    size = stored.contract.input
    table = stored.rows.to_pydict()
    found = np.zeros(len(table["source"]))
    rows: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (source, frame) in enumerate(zip(table["source"], table["frame"], strict=True)):
        rows[source][frame].append(row)
    ltwh = np.stack([table[name] for name in ("left", "top", "width", "height")], axis=1)
    for source, frames in rows.items():
        with VideoReader(source) as reader:
            for frame in reader.frames(sorted(frames)):
                mine = frames[frame.number]
                boxes = np.concatenate([ltwh[mine, :2], ltwh[mine, :2] + ltwh[mine, 2:]], axis=1)
                crops = crop_batch(frame.image, boxes, size.height, size.width)
                grey = [cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops]
                found[mine] = [cv2.Laplacian(one, cv2.CV_32F).var() for one in grey]
    return found


def measured(model: Path, world: Path, seed: int, *, shake: bool) -> dict[str, float]:
    """Figures of a world by name, mAP in percent."""
    originals = sorted((world / "videos").glob("*.mp4"))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        videos = [shaken(one, folder, seed) for one in originals] if shake else originals
        embed(
            videos,
            model,
            folder / "all.parquet",
            detections=[video.with_suffix(".gt.txt") for video in originals],
            tracks=folder / "tracks.parquet",
        )
        stored = read_embeddings(folder / "all.parquet")
        tracks = read_embeddings(folder / "tracks.parquet")
        clarity = sharpness(stored)
    quality = stored.rows["quality"].to_numpy().astype(np.float64)
    sharp = quality * clarity / (clarity + np.median(clarity))
    sources, people = (stored.rows[name].to_pylist() for name in ("source", "track_id"))
    keys = list(zip(sources, people, strict=True))
    wanted = list(zip(*(tracks.rows[n].to_pylist() for n in ("source", "track_id")), strict=True))
    rows = [np.array([i for i, key in enumerate(keys) if key == one]) for one in wanted]
    labels = Labels(
        person=np.array([person for _, person in wanted]),
        camera=np.array([sorted(set(sources)).index(source) for source, _ in wanted]),
    )

    def map_of(vectors: NDArray[np.floating]) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        found = evaluate_vectors(unit.astype(np.float32), labels, unit.astype(np.float32), labels)
        return 100 * float(found.mAP)

    def of(choice: Choice) -> float:
        return map_of(np.stack([stored.vectors[choice(mine)].mean(axis=0) for mine in rows]))

    def weighted(weights: NDArray[np.float64]) -> float:
        means = [(stored.vectors[mine] * weights[mine, None]).sum(axis=0) for mine in rows]
        return map_of(np.stack(means))

    def best(marks: NDArray[np.float64], count: int) -> Choice:
        return lambda mine: mine[np.argsort(-marks[mine], kind="stable")[:count]]

    rng = np.random.default_rng(seed)
    found = {
        "tracks": len(wanted),
        "crops": len(keys),
        "embed --tracks": map_of(tracks.vectors),
        "all crops, plain mean": of(lambda mine: mine),
        "all crops, by sharpness": weighted(clarity),
        "all crops, by quality and sharpness": weighted(sharp),
    }
    for count in COUNTS:
        draws = [of(lambda mine: rng.permutation(mine)[:count]) for _ in range(DRAWS)]  # noqa: B023
        found[f"best {count}"] = of(best(quality, count))
        found[f"best {count} by quality and sharpness"] = of(best(sharp, count))
        found[f"random {count}"] = float(np.mean(draws))
        found[f"random {count}, deviation of draws"] = float(np.std(draws))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("worlds", type=Path, nargs="+")
    parser.add_argument("--shake", action="store_true")
    arguments = parser.parse_args()
    found = [
        measured(arguments.model, world, seed, shake=arguments.shake)
        for seed, world in enumerate(arguments.worlds)
    ]
    for name in found[0]:
        values = np.array([one[name] for one in found])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        print(json.dumps({name: round(values.mean(), 1), "deviation": round(float(spread), 1)}))


if __name__ == "__main__":
    main()
