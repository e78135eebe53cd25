"""Adopted models against the frameworks they come from, on crops that those read themselves.

Runs in an environment that has torchreid, timm and fast-reid beside sa-deploy::

    python benchmarks/adoption_judge.py FOLDER [NAME ...]

Weights are random, seeded, under each framework's real names and shapes; batch norms get statistics
of their own. Every model goes checkpoint -> ``adopt`` -> ``embed``; the framework's own loader
reads the same image files, which are of the model's size so that nobody resizes. Prints the largest
difference between the unit vectors of each model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

Vectors = NDArray[np.float32]
Judge = Callable[[list[Path]], Vectors]
CROPS = 24


def seeded(network: nn.Module, *, strong: bool = False) -> nn.Module:
    """Random weights, and statistics for its batch norms."""
    generator = torch.Generator().manual_seed(20_260)
    for module in network.modules():
        if strong and isinstance(
            module, nn.Conv2d
        ):  # those of some frameworks fade to one vector for all
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.7, 1.3),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.6, 1.4),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=generator)
    return network.eval()


def unit(vectors: torch.Tensor) -> Vectors:
    """Rows of unit length."""
    found: Vectors = nn.functional.normalize(vectors.flatten(1).double(), dim=1).float().numpy()
    return found


def torchreid_model(name: str) -> Callable[[Path], tuple[list[str], Judge]]:
    """A model of torchreid, and its FeatureExtractor on the same weights."""

    def make(folder: Path) -> tuple[list[str], Judge]:
        from torchreid.reid.models import build_model
        from torchreid.reid.utils import FeatureExtractor

        torch.manual_seed(1)
        made = build_model(name, num_classes=751, pretrained=False, use_gpu=False)
        network = seeded(made, strong=name.startswith("mobilenet"))
        file = folder / f"{name}.pth.tar"
        saved = {"state_dict": network.state_dict(), "epoch": 60}
        torch.save(saved, plain := folder / f"{name}.plain.pth.tar")
        # What torchreid's engine saves; torch from 2.6 on refuses it to torchreid's own loader.
        torch.save({**saved, "rank1": np.float64(0.9)}, file)
        words = [str(file)]
        if name.startswith("mobilenet"):
            words += ["--factory", f"torchreid.reid.models:{name}"]

        def judge(paths: list[Path]) -> Vectors:
            extractor = FeatureExtractor(
                model_name=name, model_path=str(plain), device="cpu", verbose=False
            )
            return unit(extractor([str(path) for path in paths]))

        return words, judge

    return make


def fastreid_model(config: dict[str, Any]) -> Callable[[Path], tuple[list[str], Judge]]:
    """A model of fast-reid, built from its configuration."""

    def make(folder: Path) -> tuple[list[str], Judge]:
        from fastreid.config import get_cfg
        from fastreid.modeling import build_model
        from PIL import Image

        cfg = get_cfg()
        options = dict(config)
        name = options.pop("name")
        flat = [item for pair in options.items() for item in pair]
        cfg.merge_from_list([*flat, "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False])
        torch.manual_seed(2)
        network = seeded(build_model(cfg))
        for last, module in network.named_modules():
            if last.endswith("bn3"):  # or sums over blocks outgrow the cube that GeM takes of them
                module.weight.data.mul_(0.2)
        file = folder / f"{name}.pth"
        torch.save({"model": network.state_dict(), "iteration": 1}, file)

        def judge(paths: list[Path]) -> Vectors:
            images = [
                torch.as_tensor(np.asarray(Image.open(path).convert("RGB"), np.float32))
                for path in paths
            ]
            with torch.no_grad():
                return unit(network(torch.stack(images).permute(0, 3, 1, 2).contiguous()))

        return [str(file)], judge

    return make


def timm_model(name: str, **options: Any) -> Callable[[Path], tuple[list[str], Judge]]:
    """A model of timm under its own transform."""

    def make(folder: Path) -> tuple[list[str], Judge]:
        import timm
        from PIL import Image
        from torchvision import transforms

        torch.manual_seed(3)
        network: Any = seeded(
            timm.create_model(name, num_classes=751, **options), strong=name.startswith("mobilenet")
        )
        file = folder / f"{name}.pth"
        torch.save(network.state_dict(), file)
        config = network.pretrained_cfg
        transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(config["mean"], config["std"])]
        )
        network.reset_classifier(0)

        def judge(paths: list[Path]) -> Vectors:
            images = [transform(Image.open(path).convert("RGB")) for path in paths]
            with torch.no_grad():
                return unit(network(torch.stack(images)))

        return [str(file), "--arch", f"timm/{name}"], judge

    return make


def torchvision_model(name: str) -> Callable[[Path], tuple[list[str], Judge]]:
    """A model of torchvision without its last linear layer."""

    def make(folder: Path) -> tuple[list[str], Judge]:
        import torchvision
        from torchvision.io import ImageReadMode, read_image

        torch.manual_seed(4)
        network = seeded(torchvision.models.get_model(name, weights=None))
        file = folder / f"{name}.pth"
        torch.save(network.state_dict(), file)
        last = [k for k, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
        owner, _, leaf = last.rpartition(".")
        setattr(network.get_submodule(owner), leaf, nn.Identity())
        normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

        def judge(paths: list[Path]) -> Vectors:
            images = [normalize(read_image(str(p), ImageReadMode.RGB).float() / 255) for p in paths]
            with torch.no_grad():
                return unit(network(torch.stack(images)))

        return [str(file), "--arch", f"torchvision/{name}"], judge

    return make


_BOT = {"MODEL.HEADS.NUM_CLASSES": 751, "MODEL.HEADS.WITH_BNNECK": True}
_SBS = {
    **_BOT,
    "MODEL.BACKBONE.WITH_NL": True,
    "MODEL.BACKBONE.WITH_IBN": True,
    "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPoolingP",
}
MODELS: dict[str, Callable[[Path], tuple[list[str], Judge]]] = {
    **{
        name: torchreid_model(name)
        for name in (
            *("osnet_x0_25", "osnet_x1_0", "osnet_ibn_x1_0", "osnet_ain_x1_0"),
            *("resnet50", "resnet50_fc512", "mobilenetv2_x1_0"),
        )
    },
    "bot_r50": fastreid_model({"name": "bot_r50", **_BOT}),
    "sbs_r50_ibn": fastreid_model({"name": "sbs_r50_ibn", **_SBS}),
    "mgn_r50_ibn": fastreid_model(
        {
            "name": "mgn_r50_ibn",
            **_SBS,
            "MODEL.META_ARCHITECTURE": "MGN",
            "MODEL.BACKBONE.WITH_NL": False,
            "MODEL.HEADS.EMBEDDING_DIM": 256,
        }
    ),
    "vit_small": timm_model("vit_small_patch16_224", img_size=(256, 128)),
    "mobilenetv2_100": timm_model("mobilenetv2_100"),
    "convnext_tiny": torchvision_model("convnext_tiny"),
}


def command(*words: str) -> str:
    """What a command of sa-deploy prints."""
    from sa_deploy.app import app

    done = CliRunner().invoke(app, list(words))
    if done.exit_code:
        raise SystemExit(f"sa-deploy {' '.join(words)}: {done.output} {done.exception!r}")
    return done.stdout


def crops(folder: Path, height: int, width: int) -> list[Path]:
    """Image files of one size, from the generated world."""
    from sa_export.crop_sets import validation_crops

    folder.mkdir(parents=True, exist_ok=True)
    images = validation_crops(None, height=height, width=width, limit=CROPS).images[:CROPS]
    paths = [folder / f"{number:03d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    return paths


def main(folder: Path, names: list[str]) -> None:
    """Judge the named models, all by default."""
    from sa_deploy import read_embeddings

    torch.set_num_threads(2)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or list(MODELS):
        words, judge = MODELS[name](folder)
        target = folder / f"{name}.onnx"
        answer = json.loads(command("adopt", *words, "--out", str(target), "--json"))
        size = (384, 128) if name.startswith("mgn") else (256, 128)
        paths = crops(folder / f"crops{size[0]}", *size)
        rows = folder / f"{name}.parquet"
        rows.unlink(missing_ok=True)
        where = str(folder / f"crops{size[0]}")
        command("embed", str(target), where, "--out", str(rows), "--runtime", "onnxruntime")
        ours = read_embeddings(rows)
        order = np.argsort(ours.rows["source"].to_pylist())
        difference = np.abs(ours.vectors[order] - judge(paths)).max()
        print(
            f"{name:18} {answer['dim']:6} numbers {answer['flops'] / 1e9:6.2f} GFLOP "
            f"{target.stat().st_size / 1e6:7.1f} MB  difference {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
