"""Do the rates that `calibrate` states hold on other people? And do its thresholds link tracks?

    python -m benchmarks.calibration --fit w11 w12 --test w1 w2 w3 \\
        --out benchmarks/results/calibration.json

Each word names a drawn world (`sa-deploy data synth w1 --seed 1`) and its embeddings beside it, as
for ``benchmarks/linking.py``. Thresholds are set on every world of --fit, at each stated rate of
false accepts, and measured on every world of --test, whose people are others: pairs accepted,
searches that find the right person, searches for people who are not there that find somebody, and
the links of tracks that the threshold gives (`sa-deploy link --calibrated`). What each test world
itself allows stands beside it: TPR and DIR at the rates that papers print.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.linking import world_of
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.gallery.calibration import Stated, calibrate_pairs, rates_at
from sa_runtime.linking.fit import World, measure_world
from sa_runtime.linking.link import link_tracks
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.retrieval.distance import VectorDistances
from sa_runtime.retrieval.evaluation import labels_of
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.open_set import evaluate_open_set
from sa_runtime.retrieval.stored import StoredImages
from sa_runtime.retrieval.vectors import VectorRows
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

RATES = (1e-2, 1e-3, 1e-4)
Sides = tuple[Any, Labels, Any, Labels]


def sides_of(folder: Path) -> Sides:
    """Queries and gallery of a drawn world with their labels."""
    dataset = load_dataset("synthetic", folder)
    stored = read_embeddings(folder.with_suffix(".parquet"))
    embed = StoredImages(stored, dataset.root, name=str(folder))
    found: list[Any] = []
    for samples in (dataset.query, dataset.gallery):
        found += [embed([one.path for one in samples]), labels_of(samples)]
    return found[0], found[1], found[2], found[3]


def searched(sides: Sides, threshold: float) -> dict[str, float]:
    """Of the queries with a match: how many find it first, and how many find somebody without it.

    Only what is below the threshold counts as found.
    """
    query, known, gallery, others = sides
    rows = VectorRows(query, name="query"), VectorRows(gallery, name="gallery")
    right, wrong, total = 0, 0, 0
    for index, row in enumerate(VectorDistances(*rows).rows()):
        same = others.person == known.person[index]
        matches = row[same & (others.camera != known.camera[index])]
        if len(matches):
            genuine, impostor = matches.min(), row[~same].min()
            right += genuine < min(impostor, threshold)
            wrong += impostor < threshold
            total += 1
    return {"right": right / total, "somebody_else": wrong / total, "searches": total}


def measured(
    fitted: Sides, tests: dict[str, tuple[Sides, World]], rate: float
) -> tuple[float, list[dict[str, Any]]]:
    """The threshold of a world, and what it does on the others."""
    made = calibrate_pairs(*fitted, stated=Stated(false_accepts=rate))
    rows = []
    for name, (sides, world) in tests.items():
        wrong, right = rates_at(*sides, made.match_below)
        links = link_tracks(world.tracks, 1 - made.match_below / 2)
        rows.append(
            {
                "measured_on": name,
                "false_accepts": wrong.to_dict(),
                "holds": wrong.holds(rate),
                "true_accepts": right.to_dict(),
                "searches": searched(sides, made.match_below),
                "open_set": evaluate_open_set(*sides).to_dict(),
                "links": measure_world(world, links).to_dict(),
            }
        )
    return made.match_below, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--fit", nargs="+", type=Path, required=True)
    parser.add_argument("--test", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    tests = {folder.name: (sides_of(folder), world_of(folder)[0]) for folder in chosen.test}
    result = []
    for folder in chosen.fit:
        fitted = sides_of(folder)
        for rate in RATES:
            threshold, rows = measured(fitted, tests, rate)
            wrong = [row["false_accepts"]["value"] for row in rows]
            right = [row["true_accepts"]["value"] for row in rows]
            found = [row["searches"]["right"] for row in rows]
            others = [row["searches"]["somebody_else"] for row in rows]
            idf1 = [row["links"]["idf1"] for row in rows]
            result.append(
                {
                    "calibrated_on": folder.name,
                    "stated": rate,
                    "match_below": threshold,
                    "false_accepts_mean": float(np.mean(wrong)),
                    "false_accepts_largest": max(wrong),
                    "held": sum(row["holds"] for row in rows),
                    "true_accepts_mean": float(np.mean(right)),
                    "found_mean": float(np.mean(found)),
                    "somebody_else_mean": float(np.mean(others)),
                    "idf1_mean": float(np.mean(idf1)),
                    "idf1_deviation": float(np.std(idf1, ddof=1)),
                    "worlds": rows,
                }
            )
            shown = {key: value for key, value in result[-1].items() if key != "worlds"}
            print(json.dumps(shown), flush=True)
    content = {
        "calibrations": result,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": dataclasses.asdict(this_environment(commit=True)),
    }
    if chosen.out is not None:
        with atomic_path(chosen.out) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
