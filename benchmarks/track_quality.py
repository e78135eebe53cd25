"""Measures what the quality of boxes is worth: tracks by their best crops, by random ones, by all.

Videos and truth are those of ``sa-deploy data synth``, where a track's id is its person. Every box
is embedded once, with its quality; the vector of a track is the mean of some of its crops.
Each track is looked for among those of the other cameras::

    sa-deploy data synth world --cameras 4 --videos 4 --people 20
    python benchmarks/track_quality.py run/model.onnx world/videos
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from sa_runtime.detections.options import BoxOptions
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import evaluate_vectors

ALL = 10**9
COUNTS = (1, 2, 4, 8)
DRAWS = 20

Choice = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Some rows of a track, of all of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("videos", type=Path)
    arguments = parser.parse_args()
    videos = sorted(arguments.videos.glob("*.mp4"))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "all.parquet"
        embed(
            videos,
            arguments.model,
            out,
            detections=[video.with_suffix(".gt.txt") for video in videos],
            boxes=BoxOptions(per_track=ALL),
        )
        stored = read_embeddings(out)
    quality = np.array(stored.rows["quality"].to_pylist())
    sources = stored.rows["source"].to_pylist()
    cameras = np.array([sorted(set(sources)).index(source) for source in sources])
    people = np.array(stored.rows["track_id"].to_pylist())
    tracks = [
        np.flatnonzero((cameras == camera) & (people == person))
        for camera, person in sorted(set(zip(cameras.tolist(), people.tolist(), strict=True)))
    ]

    def map_of(choice: Choice) -> float:
        vectors = np.stack([stored.vectors[choice(rows)].mean(axis=0) for rows in tracks])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        labels = Labels(
            person=np.array([people[rows[0]] for rows in tracks]),
            camera=np.array([cameras[rows[0]] for rows in tracks]),
        )
        found = evaluate_vectors(vectors.astype(np.float32), labels, vectors, labels)
        return 100 * float(found.mAP)

    rng = np.random.default_rng(0)
    table = []
    for count in COUNTS:

        def best(rows: NDArray[np.int64], count: int = count) -> NDArray[np.int64]:
            return rows[np.argsort(-quality[rows], kind="stable")[:count]]

        def drawn(rows: NDArray[np.int64], count: int = count) -> NDArray[np.int64]:
            return rng.permutation(rows)[:count]

        random = [map_of(drawn) for _ in range(DRAWS)]
        table.append(
            {
                "crops_a_track": count,
                "best_map": round(map_of(best), 2),
                "random_map": round(float(np.mean(random)), 2),
                "random_std": round(float(np.std(random)), 2),
            }
        )
    whole = round(map_of(lambda rows: rows), 2)
    print(
        json.dumps(
            {
                "tracks": len(tracks),
                "crops": len(people),
                "people": len(set(people.tolist())),
                "all_map": whole,
                "by_count": table,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
