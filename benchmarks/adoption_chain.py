"""The whole way of models of others, by the commands that the pages show.

Runs in an environment that has torchreid, timm and fast-reid beside sa-deploy::

    python benchmarks/adoption_chain.py FOLDER [NAME ...] [--out FILE]

Each model has random seeded weights under its framework's real names and shapes. From its
checkpoint: ``inspect``, ``adopt`` to ONNX and OpenVINO at FP32 and to OpenVINO at int8,
``inspect``, ``bench`` of all beside the raw checkpoint, ``embed`` of image files and its vectors
against the framework's own, ``evaluate`` on the generated world. Random weights retrieve nobody, so
int8 is gated by the cosine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adoption_judge import MODELS, command, crops
from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

NAMES = (
    *("osnet_x0_25", "osnet_x1_0", "bot_r50", "vit_small"),
    *("mobilenetv2_100", "mobilenetv2_x1_0", "convnext_tiny"),
)
WORLD = SyntheticConfig(
    seed=11, identities=12, cameras=3, images_per_camera=2, train_fraction=0.5, distractors=6,
    junk=0, videos=0, people_per_video=1,
)  # fmt: skip


def asked(*words: object) -> dict[str, Any]:
    """The JSON that a command prints."""
    found: dict[str, Any] = json.loads(command(*map(str, words), "--json"))
    return found


def chain(name: str, folder: Path, world: Path) -> dict[str, Any]:
    """One model from its checkpoint to its figures."""
    from sa_deploy import read_embeddings

    words, judge = MODELS[name](folder)
    checkpoint, options = words[0], words[1:]
    looked = asked("inspect", checkpoint)
    plain, openvino, small = (folder / f"{name}{end}" for end in (".onnx", ".xml", ".int8.xml"))
    first = asked("adopt", checkpoint, *options, "--out", plain)
    asked("adopt", checkpoint, *options, "--out", openvino)
    lower = ["--precision", "int8", "--calibration", world, "--max-map-drop", 100]
    lowered = asked("adopt", checkpoint, *options, "--out", small, *lower)
    inspected = asked("inspect", small)
    measured = asked(
        *("bench", checkpoint, plain, openvino, small),
        *("--batch-sizes", 8, "--duration", 1),
    )
    paths = crops(folder / "crops", 256, 128)
    rows = folder / f"{name}.parquet"
    rows.unlink(missing_ok=True)
    where = (str(folder / "crops"), "--out", str(rows))
    command("embed", str(plain), *where, "--runtime", "onnxruntime")  # auto may lower to bf16
    ours = read_embeddings(rows)
    order = np.argsort(ours.rows["source"].to_pylist())
    scores = {
        model.name: asked("evaluate", model, "-d", "market", "--data-dir", world)["mAP"]
        for model in (plain, openvino, small)
    }
    assert inspected["contract"]["space"] == first["space"] == lowered["space"]
    return {
        "told": looked["what"],
        "numbers": first["dim"],
        "gflop": round(first["flops"] / 1e9, 2),
        "difference": float(np.abs(ours.vectors[order] - judge(paths)).max()),
        "int8_mean_cosine": lowered["parity"]["mean_cosine"],
        "images_per_s": {c["name"]: c["series"][0]["images_per_s"] for c in measured["contenders"]},
        "mAP": {model: round(100 * value, 2) for model, value in scores.items()},
    }


def main() -> None:
    """Go the whole way with the named models, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path, help="JSON file that keeps the results")
    given = parser.parse_args()
    torch.set_num_threads(2)
    given.folder.mkdir(parents=True, exist_ok=True)
    world = given.folder / "world"
    if not world.exists():
        write_synthetic(world, WORLD, workers=1)
    found = {}
    for name in given.names:
        found[name] = chain(name, given.folder, world)
        print(name, json.dumps(found[name]), flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
