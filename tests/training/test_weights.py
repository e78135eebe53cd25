"""Weights as people have them: wrapped, without classifiers, bare, or no weights at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sa_export.runners.checkpoint import CheckpointRunner
from sa_runtime.errors import CheckpointError
from sa_training.checkpoints import Checkpoint, load_checkpoint
from sa_training.data import ArrayImages
from sa_training.loop import fit
from sa_training.options import TrainingOptions, TrainingSet
from sa_training.recipes import tiny

CLASSIFIERS = ("instance", "local_conv_layer")


@pytest.fixture(scope="module")
def content(tiny_checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(tiny_checkpoint, weights_only=True)
    return found


def renamed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def without(weights: dict[str, Tensor], *groups: str) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(groups)}


def same(found: Checkpoint, whole: Path) -> bool:
    expected = load_checkpoint(whole).network.state_dict()
    state = found.network.state_dict()
    return state.keys() == expected.keys() and all(
        torch.equal(value, expected[name]) for name, value in state.items()
    )


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_a_wrapped_network(
    content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "wrapped.pt"
    torch.save({**content, "state_dict": renamed(content["state_dict"], prefix)}, path)
    assert same(load_checkpoint(path, classifiers=True), tiny_checkpoint)


def test_a_compiled_part_of_a_network(
    content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "compiled.pt"
    names = {k.replace("base.", "base._orig_mod.", 1): v for k, v in content["state_dict"].items()}
    torch.save({**content, "state_dict": names}, path)
    assert same(load_checkpoint(path), tiny_checkpoint)


@pytest.mark.parametrize("embedding", ["parts", "global", "reduced"])
def test_without_classifiers_it_embeds_as_the_whole_one(
    content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path, embedding: str
) -> None:
    path = tmp_path / "light.pt"
    torch.save({**content, "state_dict": without(content["state_dict"], *CLASSIFIERS)}, path)
    images = np.random.default_rng(1).integers(0, 256, (3, 128, 64, 3), dtype=np.uint8)
    with (
        CheckpointRunner(path, embedding=embedding) as light,
        CheckpointRunner(tiny_checkpoint, embedding=embedding) as whole,
    ):
        assert light.contract.space == whole.contract.space
        assert np.array_equal(light.run(images), whole.run(images))


@pytest.mark.parametrize("groups", [CLASSIFIERS, ("instance_layer", "local_conv_layer")])
def test_without_classifiers_no_training_goes_on(
    content: dict[str, Any], tmp_path: Path, groups: tuple[str, ...]
) -> None:
    path = tmp_path / "light.pt"
    torch.save({**content, "state_dict": without(content["state_dict"], *groups)}, path)
    images = np.zeros((64, 128, 64, 3), np.uint8)
    training = TrainingSet(
        name="black", images=ArrayImages(images), labels=[i // 16 for i in range(64)]
    )
    with pytest.raises(
        CheckpointError,
        match=r"light\.pt: lacks the classifiers \(instance.* and \d+ more\), so that it can be "
        r"embedded with, exported and evaluated, but not trained on; pass the whole checkpoint",
    ):
        fit(tiny(), training, TrainingOptions(out=tmp_path / "out", device="cpu"), resume=path)


def test_half_of_the_classifiers_is_another_architecture(
    content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "half.pt"
    torch.save({**content, "state_dict": without(content["state_dict"], "instance5")}, path)
    with pytest.raises(CheckpointError, match=r"lacks instance5\.bias; .* another architecture"):
        load_checkpoint(path)


@pytest.mark.parametrize("classes", [4, None])
def test_a_bare_state_dict_with_its_recipe(
    content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path, classes: int | None
) -> None:
    path = tmp_path / "bare.pt"
    weights = content["state_dict"] if classes else without(content["state_dict"], *CLASSIFIERS)
    torch.save(renamed(weights, "module."), path)
    found = load_checkpoint(path, tiny())
    assert found.recipe == dataclasses.replace(
        tiny(), network=dataclasses.replace(tiny().network, classes=classes or 751)
    )
    if classes:
        assert same(found, tiny_checkpoint)


def test_a_bare_state_dict_asks_for_its_recipe(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.save(content["state_dict"], path)
    with pytest.raises(CheckpointError, match=r"bare weights, .* name its recipe, .*--recipe sa"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.onnx", "an ONNX model"), ("b.engine", "a TensorRT engine")]
)
def test_an_artefact_is_no_checkpoint(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x0a")
    with pytest.raises(
        CheckpointError, match=rf"{name}: {kind}, no checkpoint; .*`sa-deploy adopt`"
    ):
        load_checkpoint(tmp_path / name)
