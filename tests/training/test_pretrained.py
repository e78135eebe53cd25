"""Where the backbone's weights come from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor

from sa_runtime.errors import CheckpointError
from sa_training.network import SANetwork
from sa_training.pretrained import imagenet_file, initialise
from sa_training.recipes import Recipe, authors, tiny


def recipe(pretrained: str, backbone: str = "resnet18") -> Recipe:
    network = dataclasses.replace(
        authors().network, backbone=backbone, height=96, width=32, classes=5
    )
    return dataclasses.replace(authors(), network=network, pretrained=pretrained)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    torch.manual_seed(1)
    weights: dict[str, Tensor] = torchvision.models.resnet18().state_dict()
    return weights


def network_of(chosen: Recipe) -> SANetwork:
    torch.manual_seed(0)
    return initialise(SANetwork(chosen.network), chosen, resumed=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_without_network_the_error_says_where_to_put_the_file(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"cannot download https://download.pytorch.org/models/resnet50-0676ba61.pth .*"
        rf"put it at {hub}/resnet50-0676ba61.pth, or pass `pretrained=FILE` or `pretrained='none'`",
    ):
        network_of(recipe("imagenet", "resnet50"))
    assert capsys.readouterr().out == "", "stdout is for results"


def test_the_file_that_was_put_there_is_taken(hub: Path, resnet18: dict[str, Tensor]) -> None:
    path = imagenet_file("resnet18")
    assert path is not None
    assert path.parent == hub
    hub.mkdir(parents=True)
    torch.save(resnet18, path)
    network = network_of(recipe("imagenet"))
    for name, value in network.base.state_dict().items():
        assert torch.equal(value, resnet18[name])


@pytest.mark.parametrize("form", ["torchvision", "checkpoint", "parallel"])
def test_a_file_of_any_usual_form(tmp_path: Path, resnet18: dict[str, Tensor], form: str) -> None:
    content: object = resnet18
    if form == "checkpoint":
        content = {"state_dict": {f"base.{k}": v for k, v in resnet18.items()}, "epoch": 3}
    elif form == "parallel":
        content = {"state_dict": {f"module.{k}": v for k, v in resnet18.items()}}
    torch.save(content, tmp_path / "weights.pth")
    network = network_of(recipe(str(tmp_path / "weights.pth")))
    assert torch.equal(network.base.get_parameter("conv1.weight"), resnet18["conv1.weight"])


def test_the_head_starts_as_the_authors_with_pretrained_weights(
    tmp_path: Path, resnet18: dict[str, Tensor]
) -> None:
    """Facts, section 2: the stages' convolutions keep PyTorch's own initialisation then."""
    torch.save(resnet18, tmp_path / "weights.pth")
    network = network_of(recipe(str(tmp_path / "weights.pth")))
    scratch = network_of(recipe("none"))

    def std(of: SANetwork, name: str) -> float:
        return float(of.get_parameter(name).detach().std())

    for one in (network, scratch):
        assert std(one, "local_conv.weight") == pytest.approx(math.sqrt(2 / 256), rel=0.05)
        assert std(one, "instance0.weight") == pytest.approx(0.001, rel=0.1)
    fan_in = 64
    uniform = network.get_parameter("local_conv_layer1.weight").detach()
    assert float(uniform.abs().max()) == pytest.approx(1 / math.sqrt(fan_in), rel=0.02)
    assert std(network, "local_conv_layer1.weight") == pytest.approx(
        1 / math.sqrt(3 * fan_in), rel=0.05
    )
    assert std(scratch, "local_conv_layer1.weight") == pytest.approx(math.sqrt(2 / 256), rel=0.05)


def test_weights_that_do_not_fit(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    torch.save(resnet18, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError,
        match=r"weights.pth: lacks layer1.0.bn3.bias.* expected weights of resnet",
    ):
        network_of(recipe(str(tmp_path / "weights.pth"), "resnet50"))
    torch.save({**resnet18, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(
        CheckpointError, match=r"has conv1.weight \(64, 1, 7, 7\), expected \(64, 3"
    ):
        network_of(recipe(str(tmp_path / "grey.pth")))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="pretrained='imagnet': no such file; expected"):
        network_of(recipe("imagnet"))
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"page.pth': not a readable file of weights"):
        network_of(recipe(str(tmp_path / "page.pth")))
    with pytest.raises(CheckpointError, match="torchvision has no weights for resnet10-thin"):
        network_of(dataclasses.replace(tiny(), pretrained="imagenet"))


def test_a_resumed_run_looks_for_none() -> None:
    chosen = recipe("absent.pth")
    assert initialise(SANetwork(chosen.network), chosen, resumed=True)
