"""Backbones by name: torchvision's, timm's, a user's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sa_export.deploy import DeployNetwork, GraphSpec
from sa_runtime.errors import CheckpointError, InputError
from sa_training.backbones import backbone, table
from sa_training.checkpoints import load_checkpoint, save_checkpoint
from sa_training.network import NetworkConfig, SANetwork
from sa_training.overrides import override
from sa_training.pixels import network_input
from sa_training.recipes import tiny

STAGED = ("part0", "part1", "global", "stage1", "stage2", "stage3")


def config(name: str, **changes: object) -> NetworkConfig:
    fields: dict[str, object] = {"height": 64, "width": 32, "parts": 2, "classes": 5}
    return NetworkConfig(backbone=name, **{**fields, **changes})  # type: ignore[arg-type]


class TwoConvolutions(nn.Module):
    """A network as a user would bring it: strides of its own, signed output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        last: Tensor = self.last(torch.relu(self.norm(self.stem(x_N3HW))))
        return last


def two_convolutions() -> nn.Module:
    return TwoConvolutions()


def logits_only() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))


OWN = f"{__name__}:two_convolutions"


@pytest.mark.parametrize(
    ("name", "rows", "classifiers"),
    [
        ("mobilenet_v2", 4, STAGED),
        ("shufflenet_v2_x0_5", 4, STAGED),
        ("regnet_y_400mf", 4, STAGED),
        ("densenet121", 4, STAGED),
        ("osnet_x0_25", 4, STAGED),
        ("osnet_ain_x0_25", 4, STAGED),
        ("convnext_tiny", 2, STAGED),  # its patches of 2x2 cannot have stride 1
        ("timm:mobilenetv2_050", 4, STAGED),
        ("timm:vit_tiny_patch16_224", 4, STAGED[:3]),
        (OWN, 8, STAGED[:3]),
    ],
)
def test_a_backbone_gives_maps_that_train_and_deploy(
    name: str, rows: int, classifiers: tuple[str, ...]
) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = SANetwork(config(name))
    assert (network.config.map_height, network.config.classifiers) == (rows, classifiers)
    output = network.train()(torch.randn(3, 3, 64, 32))
    torch.stack([logits.square().mean() for logits in output.logits]).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in network.base.parameters() if p.requires_grad)
    network.eval()
    images = torch.randint(0, 256, (3, 64, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.embed(network_input(images))
        found = DeployNetwork(network, GraphSpec())(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_attention_never_weighs_by_negative_numbers() -> None:
    """MobileNetV2's stages end in linear layers: their channel means have either sign."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 32)
    assert all(bool((one >= 0).all()) for one in backbone("mobilenet_v2", 64, 32)(x))
    free = backbone("mobilenet_v2", 64, 32, positive=(False, False))(x)
    assert any(bool((one < 0).any()) for one in free)


def test_the_names_of_adopt_name_backbones_too() -> None:
    assert NetworkConfig(backbone="torchvision/mobilenet_v2") == NetworkConfig(
        backbone="mobilenet_v2"
    )


def test_names_that_are_none() -> None:
    with pytest.raises(InputError, match=r"backbone='resnet51': expected one of resnet10-thin.*"):
        config("resnet51")
    with pytest.raises(InputError, match=r"'nowhere:net': cannot be imported .*nowhere"):
        config("nowhere:net")
    with pytest.raises(InputError, match=r"its network returns \[\(1, 7\)\]; expected the last"):
        config(f"{__name__}:logits_only")
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"'timm:resnet51': timm has none of that name"):
        config("timm:resnet51")


def test_a_file_cannot_make_its_reader_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = override(tiny(), {"network.height": 64, "network.width": 32, "network.parts": 2})
    recipe = override(recipe, {"network.backbone": OWN})
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, SANetwork(recipe.network), recipe, 1, {})
    assert load_checkpoint(path).network.config.backbone == OWN, "this process named it itself"
    monkeypatch.setattr(table, "_used", set())
    with pytest.raises(CheckpointError, match=f"made by {OWN}.*set SA_DEPLOY_FACTORIES={OWN}"):
        load_checkpoint(path)
    monkeypatch.setenv("SA_DEPLOY_FACTORIES", OWN)
    assert load_checkpoint(path).network.config.backbone == OWN
