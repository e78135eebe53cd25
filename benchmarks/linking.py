"""Links of tracks over cameras against nearest-neighbour linking, on drawn worlds.

    python benchmarks/linking.py --fit w11 w12 --test w1 w2 w3 --out benchmarks/results/linking.json

Each word names a drawn world (`sa-deploy data synth w1 --seed 1`) and its embeddings beside it
(`w1.parquet`, of its query and bounding_box_test folders by `sa-deploy embed`). The images of a
person under a camera are cut into tracks of one or two images, six people out of ten are seen by a
camera, and everyone walks from camera to camera, so that some are seen at once. All ways learn
their threshold from the worlds of --fit.
"""

from __future__ import annotations

import argparse
import json
import platform
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.datasets.base import JUNK
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.linking.fit import World, fit_links, measure_world
from sa_runtime.linking.link import link_nearest, link_tracks
from sa_runtime.linking.tracks import Tracks, mean_vectors
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.retrieval.stored import StoredImages

SEEN = 0.6
STAY_S, WALK_S, SPAN_S = 20.0, 60.0, 1800.0


def world_of(folder: Path) -> tuple[World, str]:
    """Tracks of a drawn world, with the truth, and the id of their feature space."""
    dataset = load_dataset("synthetic", folder)
    stored = read_embeddings(folder.with_suffix(".parquet"))
    rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
    samples = [one for one in (*dataset.query, *dataset.gallery) if one.person not in (JUNK, 0)]
    vectors = StoredImages(stored, dataset.root, name=str(folder))([one.path for one in samples])
    by_place: dict[tuple[int, int], list[int]] = {}
    for row, sample in enumerate(samples):
        by_place.setdefault((sample.person, sample.camera), []).append(row)
    people = sorted({person for person, _ in by_place})
    begin = {person: rng.uniform(0, SPAN_S) for person in people}
    found: list[tuple[int, int, float, float, list[int]]] = []
    for person in people:
        now = begin[person]
        for camera in rng.permutation(len({sample.camera for sample in samples})).tolist():
            images = by_place.get((person, camera), [])
            if not images or rng.random() > SEEN:
                continue
            for part in np.array_split(rng.permutation(images), rng.integers(1, 3)):
                stay = rng.uniform(0.3, 1) * STAY_S
                found.append((person, camera, now, now + stay, part.tolist()))
                now += stay + rng.uniform(1, 5)
            now += rng.uniform(0.5, 1.5) * WALK_S
    of_row = np.repeat(np.arange(len(found)), [len(one[4]) for one in found])
    rows = np.concatenate([one[4] for one in found])
    names = tuple(f"c{one[1]}" for one in found)
    tracks = Tracks(
        source=names,
        camera=names,
        number=np.arange(len(found)),
        start=np.array([one[2] for one in found]),
        end=np.array([one[3] for one in found]),
        rows=np.bincount(of_row),
        vectors=mean_vectors(vectors[rows], of_row, len(found)),
    )
    return World(tracks=tracks, person=np.array([one[0] for one in found])), stored.contract.space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fit", nargs="+", type=Path, required=True)
    parser.add_argument("--test", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    fitted = [world_of(folder) for folder in chosen.fit]
    space = fitted[0][1]
    ways: dict[str, Any] = {
        "linked": link_tracks,
        "linked, camera bias left in": lambda t, x: link_tracks(t, x, remove_bias=False),
        "nearest neighbours": link_nearest,
    }
    tests = [world_of(folder)[0] for folder in chosen.test]
    result: dict[str, Any] = {}
    for name, way in ways.items():
        parameters = fit_links([world for world, _ in fitted], space, linker=way)
        found = [measure_world(w, way(w.tracks, parameters.threshold)).to_dict() for w in tests]
        result[name] = {
            "threshold": parameters.threshold,
            "idf1_fitted": parameters.idf1,
            "worlds": found,
            **{
                f"{key}_{what}": float(value)
                for key in ("idf1", "precision", "recall")
                for what, value in (
                    ("mean", np.mean([one[key] for one in found])),
                    ("deviation", np.std([one[key] for one in found], ddof=1)),
                )
            },
        }
        print(name, {key: round(value, 3) for key, value in result[name].items() if "_" in key})
    content = {
        "worlds": [{"tracks": len(w.tracks), "persons": len(np.unique(w.person))} for w in tests],
        "ways": result,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
