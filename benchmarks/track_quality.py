"""Measures what the quality of boxes is worth: tracks by all crops, by their best, by random ones.

Every box is embedded once, with its quality; the vector of a track is that of ``embed --tracks``,
or the mean of some of its crops.

Of ``sa-deploy data synth``, where a track's id is its person and every world has a seed of its own,
each is looked for among those of the other cameras; figures are means over the worlds with their
standard deviation::

    for seed in 0 1 2; do
      sa-deploy data synth world$seed --cameras 4 --videos 4 --people 20 --seed $seed
    done
    python -m benchmarks.track_quality run/model.onnx world0 world1 world2

Of sequences of MOTChallenge, which one camera films each, the first and the last third of every
person's boxes are tracks of their own, where these have eight or more, and each is looked for among
the other thirds of the people of all sequences; with 95 % intervals over people, of the figures
and of what they are above that of ``embed --tracks``::

    python -m benchmarks.track_quality run/model.onnx --mot MOT17/train --out found.json

``--shake`` blurs every other frame, drawn, as a moving camera does, by 3 to 17 pixels. Sharpness is
the variance of the Laplacian of a crop at the size of the network, over itself and the median.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.mot_sequences import frames_of, sequences, truth_of
from benchmarks.record import record
from sa_runtime.crops import crop_batch
from sa_runtime.detections.base import Detections
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.bootstrap import intervals
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_vectors
from sa_runtime.sources.reader import VideoReader

COUNTS = (1, 2, 4, 8)
DRAWS = 20
LONGEST_BLUR = 17
LEAST = 8
"""Boxes of a third of a track."""
REFERENCE = "embed --tracks"

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
        for number, image in pictures(Path(source), sorted(frames)):
            mine = frames[number]
            boxes = np.concatenate([ltwh[mine, :2], ltwh[mine, :2] + ltwh[mine, 2:]], axis=1)
            crops = crop_batch(image, boxes, size.height, size.width)
            grey = [cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops]
            found[mine] = [cv2.Laplacian(one, cv2.CV_32F).var() for one in grey]
    return found


def pictures(source: Path, wanted: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Some frames of a video, or of the folder ``img1`` of a sequence."""
    if source.is_dir():
        needed = set(wanted)
        yield from (one for one in frames_of(source.parent) if one[0] in needed)
        return
    with VideoReader(source) as reader:
        for frame in reader.frames(wanted):
            yield frame.number, frame.image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filmed:
    """What is embedded, with the boxes of each source.

    Attributes:
        thirds: whether numbers of tracks are of thirds: twice the person's, and 1 for the last.
    """

    sources: list[Path]
    boxes: list[Path] | list[Detections]
    thirds: bool

    def labels(self, tracks: StoredEmbeddings) -> Labels:
        """Person and camera of each track; a third is what a camera is elsewhere."""
        table = [tracks.rows[name].to_pylist() for name in ("source", "track_id")]
        place = {name: index for index, name in enumerate(sorted(set(table[0])))}
        if not self.thirds:
            return Labels(person=np.array(table[1]), camera=np.array([place[s] for s in table[0]]))
        number = np.array(table[1])
        most = number.max() // 2 + 1
        source = np.array([place[one] for one in table[0]])
        return Labels(person=source * most + number // 2, camera=number % 2)


def drawn(world: Path, folder: Path, seed: int, *, shake: bool) -> Filmed:
    originals = sorted((world / "videos").glob("*.mp4"))
    return Filmed(
        sources=[shaken(one, folder, seed) for one in originals] if shake else originals,
        boxes=[video.with_suffix(".gt.txt") for video in originals],
        thirds=False,
    )


def in_thirds(truth: Detections) -> Detections:
    """The first and the last third of the boxes of each person."""
    ids, kept = truth.track_ids * 2, np.zeros(len(truth), np.bool_)
    for person in np.unique(truth.track_ids):
        mine = np.flatnonzero(truth.track_ids == person)
        third = len(mine) // 3
        if third >= LEAST:
            kept[mine[:third]] = kept[mine[-third:]] = True
            ids[mine[-third:]] += 1
    return dataclasses.replace(truth, track_ids=ids).chosen(kept)


def filmed(home: Path) -> Filmed:
    found = sequences(home)
    boxes = [in_thirds(truth_of(one)) for one in found]
    return Filmed(sources=found, boxes=boxes, thirds=True)


def measured(model: Path, given: Filmed, folder: Path, seed: int) -> dict[str, Any]:
    """Figures by name: mAP in percent, and beside it its value for each track."""
    embed(
        given.sources,
        model,
        folder / "all.parquet",
        detections=given.boxes,
        tracks=folder / "tracks.parquet",
    )
    stored = read_embeddings(folder / "all.parquet")
    tracks = read_embeddings(folder / "tracks.parquet")
    clarity = sharpness(stored)
    quality = stored.rows["quality"].to_numpy().astype(np.float64)
    sharp = quality * clarity / (clarity + np.median(clarity))
    keys, wanted = (
        list(zip(*(one.rows[name].to_pylist() for name in ("source", "track_id")), strict=True))
        for one in (stored, tracks)
    )
    rows = [np.array([i for i, key in enumerate(keys) if key == one]) for one in wanted]
    labels = given.labels(tracks)

    def map_of(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return 100 * evaluate_vectors(unit, labels, unit, labels).average_precision

    def of(choice: Choice) -> NDArray[np.float64]:
        return map_of(np.stack([stored.vectors[choice(mine)].mean(axis=0) for mine in rows]))

    def weighted(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = [(stored.vectors[mine] * weights[mine, None]).sum(axis=0) for mine in rows]
        return map_of(np.stack(means))

    def best(marks: NDArray[np.float64], count: int) -> Choice:
        return lambda mine: mine[np.argsort(-marks[mine], kind="stable")[:count]]

    rng = np.random.default_rng(seed)
    found = {
        REFERENCE: map_of(tracks.vectors),
        "all crops, plain mean": of(lambda mine: mine),
        "all crops, by sharpness": weighted(clarity),
        "all crops, by quality and sharpness": weighted(sharp),
    }
    spread = {}
    for count in COUNTS:
        draws = [of(lambda mine: rng.permutation(mine)[:count]) for _ in range(DRAWS)]  # noqa: B023
        found[f"best {count}"] = of(best(quality, count))
        found[f"best {count} by quality and sharpness"] = of(best(sharp, count))
        found[f"random {count}"] = np.mean(draws, axis=0)
        spread[f"random {count}, deviation of draws"] = float(np.std(np.nanmean(draws, axis=1)))
    sure = intervals(found, labels.person)
    above = intervals({name: one - found[REFERENCE] for name, one in found.items()}, labels.person)
    return {
        "tracks": len(wanted),
        "crops": len(keys),
        "figures": {name: float(np.nanmean(one)) for name, one in found.items()} | spread,
        "between": {name: [one.low, one.high] for name, one in sure.items()},
        f"above {REFERENCE}, between": {name: [one.low, one.high] for name, one in above.items()},
    }


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 1) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("worlds", type=Path, nargs="*")
    parser.add_argument("--shake", action="store_true")
    parser.add_argument("--mot", type=Path, help="folder of sequences of MOTChallenge")
    parser.add_argument("--out", type=Path, help="JSON file for what --mot finds")
    arguments = parser.parse_args()
    if (arguments.mot is None) == (not arguments.worlds):
        parser.error("give folders of `sa-deploy data synth`, or --mot FOLDER")
    if arguments.mot is not None:
        with TemporaryDirectory() as temporary:
            one = measured(arguments.model, filmed(arguments.mot), Path(temporary), 0)
        names = [sequence.name for sequence in sequences(arguments.mot)]
        record("track_quality/1", {"sequences": names, **rounded(one)}, arguments.out)
        return
    found = []
    for seed, world in enumerate(arguments.worlds):
        with TemporaryDirectory() as temporary:
            videos = drawn(world, Path(temporary), seed, shake=arguments.shake)
            found.append(measured(arguments.model, videos, Path(temporary), seed)["figures"])
    for name in found[0]:
        values = np.array([one[name] for one in found])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        print(json.dumps({name: round(values.mean(), 1), "deviation": round(float(spread), 1)}))


if __name__ == "__main__":
    main()
