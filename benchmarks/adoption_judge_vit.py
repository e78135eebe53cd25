"""Networks of TransReID and CLIP-ReID checkpoints against those projects' own code.

    python benchmarks/adoption_judge_vit.py TRANSREID CLIP_REID

takes the folders of the two projects' sources. Weights are random, seeded, under their real names
and shapes, with patches that touch (step 16) and that overlap (step 12). Prints the largest
difference between the unit vectors that their code and the recognised network give for the same
pixels.
"""

from __future__ import annotations

import collections.abc
import importlib.util
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sa_export.families.base import Wanted
from sa_export.families.table import network_of
from sa_export.foreign_weights import read_foreign_weights

STEPS = {16: (16, 8), 12: (21, 10)}
"""Step of the patches -> their rows and columns at 256x128."""


def loaded(name: str, path: Path) -> Any:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def transreid(folder: Path, images: Tensor) -> Iterator[tuple[str, dict[str, Tensor], Tensor]]:
    """Name, weights as TransReID saves them, and its vectors."""
    six: Any = types.ModuleType("torch._six")  # which today's torch lacks
    six.container_abcs, six.int_classes = collections.abc, int
    sys.modules["torch._six"] = six
    code = loaded("transreid_vit", folder / "model" / "backbones" / "vit_pytorch.py")
    for step in STEPS:
        network = code.vit_base_patch16_224_TransReID(img_size=(256, 128), stride_size=step).eval()
        for parameter in network.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        weights = {f"base.{name}": value for name, value in network.state_dict().items()}
        head = {"bottleneck.weight": torch.ones(768), "classifier.weight": torch.zeros(751, 768)}
        yield f"TransReID, step {step}", weights | head, network(images)


def clip_reid(folder: Path, images: Tensor) -> Iterator[tuple[str, dict[str, Tensor], Tensor]]:
    """Name, weights as CLIP-ReID saves them, and its vectors."""
    code = loaded("clip_reid_model", folder / "model" / "clip" / "model.py")
    for step, (rows, columns) in STEPS.items():
        network = code.VisionTransformer(rows, columns, 16, step, 768, 12, 12, 512).eval()
        weights = {f"image_encoder.{name}": value for name, value in network.state_dict().items()}
        head = {"bottleneck.weight": torch.ones(768), "classifier.weight": torch.zeros(751, 768)}
        _, tokens, projected = network(images)
        vectors = torch.cat([tokens[:, 0], projected[:, 0]], dim=1)
        yield f"CLIP-ReID, step {step}", weights | head, vectors


@torch.no_grad()
def main(transreid_folder: Path, clip_folder: Path) -> None:
    """Judge both."""
    torch.manual_seed(0)
    images = torch.randn(3, 3, 256, 128)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pth"
        for judge, source in ((transreid, transreid_folder), (clip_reid, clip_folder)):
            for name, weights, theirs in judge(source, images):
                torch.save(weights, file)
                ours = network_of(read_foreign_weights(file), Wanted()).vectors(images)
                assert isinstance(ours, Tensor)
                pair = [nn.functional.normalize(vectors.double()) for vectors in (ours, theirs)]
                difference = (pair[0] - pair[1]).abs().max().item()
                print(f"{name}: {ours.shape[1]} numbers, difference {difference:.1e}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
