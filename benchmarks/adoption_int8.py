"""int8 of adopted networks: what it costs in retrieval on the generated world, and what it gains.

    python -m benchmarks.adoption_int8 FOLDER [NAME ...] [--steps N] [--duration S] [--out FILE]

Each network is trained for some steps on the generated world as a plain classifier of its people,
saved as its framework saves it, adopted at FP32 and at int8, and evaluated on people it has not
seen. Then ``sa-deploy bench`` measures both, and ONNX Runtime at FP32, in turns. What stands in the
folder already is not made again: training and measuring may be two runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

from benchmarks.record import record
from sa_export.preprocessing import PRESETS
from sa_runtime.crops import resize
from sa_runtime.datasets.market import load_market
from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic
from sa_runtime.decoding import read_image
from sa_training.architectures.osnet import OSNet, osnet_config

WORLD = SyntheticConfig(
    seed=7, identities=160, cameras=4, images_per_camera=3, train_fraction=0.6, distractors=50,
    junk=0, videos=0, people_per_video=1,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained: size of its crops, AdamW's highest rate, steps, crops of a step."""

    height: int = 128
    width: int = 64
    rate: float = 1e-3
    steps: int = 220
    batch: int = 48


TRAININGS = {
    "osnet_x0_25": Training(),
    "test_vit": Training(rate=1e-3, steps=1500),
}
"""timm's names, but for OSNet. A transformer that starts from nothing needs many more steps."""


def network_of(name: str) -> nn.Module:
    """A network that gives vectors, with random weights."""
    if name.startswith("osnet"):
        return OSNet(osnet_config(name))
    import timm

    size = (TRAININGS[name].height, TRAININGS[name].width)
    made: nn.Module = timm.create_model(name, num_classes=0, img_size=size)
    return made


def train(name: str, world: Path, how: Training) -> nn.Module:
    """Cross-entropy over the people of the training set, crops mirrored at random."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    samples = load_market(world).train
    persons = {person: number for number, person in enumerate(sorted({s.person for s in samples}))}
    images = np.stack([resize(read_image(s.path), how.height, how.width) for s in samples])
    pixels = torch.from_numpy(PRESETS["imagenet"].apply(images)).permute(0, 3, 1, 2)
    labels = torch.tensor([persons[s.person] for s in samples])
    network = network_of(name).train()
    with torch.no_grad():
        width = network(pixels[:2]).shape[1]
    norm, classifier = nn.BatchNorm1d(width), nn.Linear(width, len(persons), bias=False)
    parameters = [*network.parameters(), *norm.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, how.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, how.rate, total_steps=how.steps, pct_start=0.1
    )
    began = time.monotonic()
    for step in range(1, how.steps + 1):
        rows = torch.from_numpy(rng.choice(len(labels), how.batch, replace=False))
        mirrored = torch.from_numpy(rng.random(how.batch) < 0.5)[:, None, None, None]
        batch = torch.where(mirrored, pixels[rows].flip(3), pixels[rows])
        scores = classifier(norm(network(batch)))
        loss = nn.functional.cross_entropy(scores, labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == how.steps:
            right = (scores.argmax(1) == labels[rows]).float().mean().item()
            spent = time.monotonic() - began
            print(
                f"{name}: step {step}, loss {loss.item():.3f}, {right:.0%} right, {spent:.0f} s",
                flush=True,
            )
    return network.eval()


def command(*words: object) -> Any:
    """The JSON that a command of sa-deploy prints."""
    from sa_deploy.app import app

    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    if done.exit_code:
        raise SystemExit(f"sa-deploy {' '.join(map(str, words))}: {done.exception!r}")
    return json.loads(done.stdout)


def main() -> None:
    """Train, adopt, evaluate, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=["osnet_x0_25", "test_vit"])
    parser.add_argument("--steps", type=int, help="of training, in place of a network's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--duration", type=float, default=2, help="seconds of bench, 0 leaves out")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the result")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    world = given.folder / "world"
    if not world.exists():
        write_synthetic(world, WORLD, workers=1)
    kept: dict[str, Any] = {}
    for name in given.names:
        how = TRAININGS[name]
        how = dataclasses.replace(how, steps=given.steps or how.steps)
        file = given.folder / f"{name}.pth"
        if not file.exists():
            torch.save(train(name, world, how).state_dict(), file)
        made = adopted(name, file, world, how)
        scores = {}
        for model in made:
            words = ["-d", "market", "--data-dir", world, "--runtime", runtime_of(model)]
            report = command("evaluate", model, *words)
            rank1 = report["cmc"]["market1501"]["rank1"]
            found = {"mAP": report["mAP"], "rank1": rank1}
            scores[model.name] = {k: round(100 * v, 2) for k, v in found.items()}
            print(f"{model.name}: {scores[model.name]}", flush=True)
        speeds = {}
        if given.duration:
            words = ["--batch-sizes", "1,16", "--duration", given.duration]
            result = command("bench", *made, *words, "--threads", given.threads)
            for contender in result["contenders"]:
                rates = {str(s["batch"]): s["images_per_s"] for s in contender["series"]}
                speeds[contender["name"]] = rates
                print(f"{contender['name']}: {rates}", flush=True)
        trained = dataclasses.asdict(how)
        kept[name] = {"training": trained, "retrieval": scores, "images_per_s": speeds}
    record("adoption_int8/1", {"networks": kept}, given.out)


def runtime_of(model: Path) -> str:
    """The runtime that computes a file as it is: what ``auto`` takes may compute in bf16."""
    return "openvino" if model.suffix == ".xml" else "onnxruntime"


def adopted(name: str, file: Path, world: Path, how: Training) -> list[Path]:
    """The artefacts of a checkpoint at FP32 and at int8."""
    arch = [] if name.startswith("osnet") else ["--arch", f"timm/{name}"]
    size = ["--height", how.height, "--width", how.width, "--preprocessing", "imagenet"]
    said = ["--validation", world, "--validation-crops", 400]
    made = [file.with_name(f"{name}{end}") for end in (".onnx", ".int8.xml")]
    lower = ["--precision", "int8", "--calibration", world]
    for target in made:
        if not target.exists():
            words = lower if target.suffix == ".xml" else []
            command("adopt", file, "--out", target, *arch, *size, *said, *words)
    return made


if __name__ == "__main__":
    main()
