"""The whole way of models of others, by the commands that the pages show.

Runs in an environment that has torchreid, timm and fast-reid beside sa-deploy::

    python -m benchmarks.adoption_chain FOLDER [NAME ...] [--out FILE] [--only PART]

Each model has random seeded weights under its framework's real names and shapes. From its
checkpoint: ``inspect``, ``adopt`` to ONNX and OpenVINO at FP32 and to OpenVINO at int8,
``inspect``, ``embed`` of image files and its vectors against the framework's own, ``evaluate`` on
the generated world; then ``bench`` of all beside the raw checkpoint. Random weights retrieve
nobody, so int8 is gated by the cosine. The part that is timed can be left for a quiet hour:
``--only proof`` first, ``--only bench`` later, on the same folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adoption_judge import MODELS, command, crops
from benchmarks.record import record
from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

NAMES = (
    *("osnet_x0_25", "osnet_x1_0", "bot_r50", "vit_small"),
    *("mobilenetv2_100", "mobilenetv2_x1_0", "convnext_tiny"),
)
WORLD = SyntheticConfig(
    seed=11, identities=12, cameras=3, images_per_camera=2, train_fraction=0.5, distractors=6,
    junk=0, videos=0, people_per_video=1,
)  # fmt: skip
FARTHEST = 1e-4
"""Largest difference between a number of a unit vector and the framework's own."""


def asked(*words: object) -> dict[str, Any]:
    """The JSON that a command prints."""
    found: dict[str, Any] = json.loads(command(*map(str, words), "--json"))
    return found


def files(name: str, folder: Path) -> list[Path]:
    """What a checkpoint becomes: ONNX and OpenVINO at FP32, OpenVINO at int8."""
    return [folder / f"{name}{end}" for end in (".onnx", ".xml", ".int8.xml")]


def proof(name: str, folder: Path, world: Path) -> dict[str, Any]:
    """One model from its checkpoint to vectors, judged by its framework, and to scores."""
    from sa_deploy import read_embeddings

    words, judge = MODELS[name](folder)
    checkpoint, options = words[0], words[1:]
    looked = asked("inspect", checkpoint)
    plain, openvino, small = files(name, folder)
    first = asked("adopt", checkpoint, *options, "--out", plain)
    asked("adopt", checkpoint, *options, "--out", openvino)
    lower = ["--precision", "int8", "--calibration", world, "--max-map-drop", 100]
    lowered = asked("adopt", checkpoint, *options, "--out", small, *lower)
    inspected = asked("inspect", small)
    paths = crops(folder / "crops", 256, 128)
    rows = folder / f"{name}.parquet"
    rows.unlink(missing_ok=True)
    where = (str(folder / "crops"), "--out", str(rows))
    command("embed", str(plain), *where, "--runtime", "onnxruntime")  # auto may lower to bf16
    ours = read_embeddings(rows)
    order = np.argsort(ours.rows["source"].to_pylist())
    difference = float(np.abs(ours.vectors[order] - judge(paths)).max())
    scores = {
        model.name: asked("evaluate", model, "-d", "market", "--data-dir", world)["mAP"]
        for model in (plain, openvino, small)
    }
    assert difference < FARTHEST, (name, difference)
    assert inspected["contract"]["precision"] == "int8"
    assert inspected["contract"]["space"] == first["space"] == lowered["space"]
    return {
        "checkpoint": Path(checkpoint).name,
        "options": options,
        "told": looked["what"],
        "numbers": first["dim"],
        "gflop": round(first["flops"] / 1e9, 2),
        "difference": difference,
        "int8_mean_cosine": lowered["parity"]["mean_cosine"],
        "mAP": {model: round(100 * value, 2) for model, value in scores.items()},
    }


def speeds(checkpoint: Path, models: list[Path]) -> dict[str, float]:
    """Images a second of the raw checkpoint and of what it became, in turns."""
    how = ["--batch-sizes", 8, "--duration", 1]
    measured = asked("bench", checkpoint, *models, *how)
    return {c["name"]: c["series"][0]["images_per_s"] for c in measured["contenders"]}


def main() -> None:
    """Go the whole way with the named models, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--only", choices=("proof", "bench"), help="one part; both by default")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the results")
    given = parser.parse_args()
    torch.set_num_threads(2)
    given.folder.mkdir(parents=True, exist_ok=True)
    world = given.folder / "world"
    if not world.exists():
        write_synthetic(world, WORLD, workers=1)
    kept = given.folder / "found.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name in given.names:
        if given.only != "bench":
            found[name] = proof(name, given.folder, world)
        if given.only != "proof":
            checkpoint = given.folder / found[name]["checkpoint"]
            found[name]["images_per_s"] = speeds(checkpoint, files(name, given.folder))
        print(name, json.dumps(found[name]), flush=True)
        kept.write_text(json.dumps(found, indent=2) + "\n")
    record("adoption_chain/1", {"batch": 8, "models": found}, given.out)


if __name__ == "__main__":
    main()
