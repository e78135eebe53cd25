"""int8 of adopted networks: what it costs in retrieval on the generated world, and what it gains.

    python benchmarks/adoption_int8.py FOLDER [osnet_x0_25] [vit_tiny] [--seconds N] [--out FILE]

Each network is trained for some seconds on the generated world as a plain classifier of its people,
saved as its framework saves it, adopted at FP32 and at int8, and evaluated on people it has not
seen. Then ``sa-deploy bench`` measures both, and ONNX Runtime at FP32, in turns. What stands in the
folder already is not made again: training and measuring may be two runs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

from sa_export.preprocessing import PRESETS
from sa_runtime.crops import read_image, resize
from sa_runtime.datasets.market import load_market
from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic
from sa_training.architectures.osnet import OSNet, osnet_config

HEIGHT, WIDTH = 128, 64
WORLD = SyntheticConfig(
    seed=7, identities=160, cameras=4, images_per_camera=3, train_fraction=0.6, distractors=50,
    junk=0, videos=0, people_per_video=1,
)  # fmt: skip


def network_of(name: str) -> nn.Module:
    """A network that gives vectors, with random weights."""
    if name.startswith("osnet"):
        return OSNet(osnet_config(name))
    import timm

    made: nn.Module = timm.create_model(
        f"{name}_patch16_224", num_classes=0, img_size=(HEIGHT, WIDTH)
    )
    return made


def train(name: str, world: Path, seconds: float) -> nn.Module:
    """Cross-entropy over the people of the training set, for some seconds."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    samples = load_market(world).train
    persons = {person: number for number, person in enumerate(sorted({s.person for s in samples}))}
    images = np.stack([resize(read_image(s.path), HEIGHT, WIDTH) for s in samples])
    pixels = torch.from_numpy(PRESETS["imagenet"].apply(images)).permute(0, 3, 1, 2)
    labels = torch.tensor([persons[s.person] for s in samples])
    network = network_of(name).train()
    with torch.no_grad():
        width = network(pixels[:2]).shape[1]
    norm, classifier = nn.BatchNorm1d(width), nn.Linear(width, len(persons), bias=False)
    parameters = [*network.parameters(), *norm.parameters(), *classifier.parameters()]
    highest = 1e-3 if name.startswith("osnet") else 7e-4
    optimizer = torch.optim.AdamW(parameters, highest, weight_decay=0.05)
    start, steps = time.monotonic(), 0
    while (done := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:  # up in the first tenth, then down with the time
            group["lr"] = highest * min(10 * done + 0.02, 1.02 - done)
        rows = torch.from_numpy(rng.choice(len(labels), 48, replace=False))
        batch = pixels[rows]
        if rng.random() < 0.5:
            batch = batch.flip(3)
        loss = nn.functional.cross_entropy(classifier(norm(network(batch))), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    print(f"{name}: {steps} steps, loss {loss.item():.3f}", flush=True)
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
    parser.add_argument("names", nargs="*", default=["osnet_x0_25", "vit_tiny"])
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--duration", type=float, default=2, help="seconds of bench, 0 leaves out")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the result")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    world = given.folder / "world"
    if not world.exists():
        write_synthetic(world, WORLD, workers=1)
    kept: dict[str, Any] = {"crops": f"{HEIGHT}x{WIDTH}", "networks": {}}
    for name in given.names:
        file = given.folder / f"{name}.pth"
        if not file.exists():
            torch.save(train(name, world, given.seconds).state_dict(), file)
        made = adopted(name, file, world)
        scores = {}
        for model in made:
            report = command("evaluate", model, "-d", "market", "--data-dir", world)
            scores[model.name] = {k: round(100 * report[k], 2) for k in ("mAP", "rank1")}
            print(f"{model.name}: {scores[model.name]}", flush=True)
        speeds = {}
        if given.duration:
            words = ["--batch-sizes", "1,16", "--duration", given.duration]
            result = command("bench", *made, *words, "--threads", given.threads)
            kept["environment"] = result["environment"]
            for contender in result["contenders"]:
                found = {s["batch"]: s["images_per_s"] for s in contender["series"]}
                speeds[contender["name"]] = found
                print(f"{contender['name']}: {found}", flush=True)
        kept["networks"][name] = {"retrieval": scores, "images_per_s": speeds}
    if given.out is not None:
        given.out.write_text(json.dumps(kept, indent=2) + "\n")


def adopted(name: str, file: Path, world: Path) -> list[Path]:
    """The artefacts of a checkpoint at FP32 and at int8."""
    arch = [] if name.startswith("osnet") else ["--arch", f"timm/{name}_patch16_224"]
    size = ["--height", HEIGHT, "--width", WIDTH, "--preprocessing", "imagenet"]
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
