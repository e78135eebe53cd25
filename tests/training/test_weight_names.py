"""Weights of a backbone under the names of whoever trained them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from sa_runtime.errors import CheckpointError
from sa_training.architectures.osnet import OSNet, osnet_config
from sa_training.network import NetworkConfig, SANetwork
from sa_training.overrides import override
from sa_training.pretrained import initialise
from sa_training.recipes import tiny


def started(name: str, file: Path) -> SANetwork:
    changes = {"network.backbone": name, "pretrained": str(file), "network.parts": 2}
    recipe = override(tiny(), changes)
    return initialise(SANetwork(recipe.network), recipe, resumed=False)


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    torch.manual_seed(3)
    weights: dict[str, Tensor] = torchvision.models.mobilenet_v2().state_dict()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in weights.items()}


def flat(name: str) -> str:
    """MobileNetV2 with every block in one list, as trackers carry it."""
    parts = name.split(".")
    if len(parts) == 6:  # features.B.conv.I.J.weight
        return ".".join([*parts[:3], str(3 * int(parts[3]) + int(parts[4])), parts[5]])
    moved = {"1": "3", "2": "4"} if parts[1] == "1" else {"2": "6", "3": "7"}
    if len(parts) == 5 and parts[2] == "conv":
        parts[3] = moved[parts[3]]
    return ".".join(parts)


@pytest.mark.parametrize("form", ["torchvision", "features", "flat", "below model"])
def test_the_forms_of_a_mobilenet(tmp_path: Path, mobilenet: dict[str, Tensor], form: str) -> None:
    given = dict(mobilenet)
    if form in ("features", "flat"):
        given = {k: v for k, v in given.items() if k.startswith("features.")}
    if form == "flat":
        given = {flat(k): v for k, v in given.items()}
        assert "features.2.conv.4.running_var" in given
    if form == "below model":
        given = {f"model.{k}": v for k, v in given.items()}
    torch.save(given, tmp_path / "w.pt")
    base = started("mobilenet_v2", tmp_path / "w.pt").base.state_dict()
    counted = [name for name in base if not name.endswith("num_batches_tracked")]
    assert len(counted) == 260
    for name in counted:
        assert torch.equal(base[name], mobilenet[name]), name


def test_timm_and_torchvision_read_each_other(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(4)
    theirs = timm.create_model("mobilenetv2_100", num_classes=9).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    x = torch.randn(1, 3, 32, 32)
    for name in ("mobilenet_v2", "timm:mobilenetv2_100"):
        base = started(name, tmp_path / "w.pt").base.eval()
        given = dict(base.named_parameters())
        (last,) = (v for k, v in given.items() if v.shape == (1280, 320, 1, 1))
        assert torch.equal(last, theirs.conv_head.weight)
        first = next(iter(given.values()))
        assert torch.equal(first, theirs.conv_stem.weight)
    with torch.no_grad():  # strides differ behind stage 3 alone
        base = started("mobilenet_v2", tmp_path / "w.pt").base.eval()
        ours = base(x)[2]
        _, maps = theirs.forward_intermediates(x, indices=[3])
    torch.testing.assert_close(ours, maps[0].relu(), atol=1e-4, rtol=1e-4)


def test_an_osnet_as_torchreid_leaves_it(tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = OSNet(osnet_config("osnet_x0_25")).eval()
    given = {f"module.{k}": v for k, v in theirs.state_dict().items()}
    given["module.classifier.weight"] = torch.zeros(7, 512)
    torch.save({"state_dict": given, "epoch": 3}, tmp_path / "w.pt")
    base = started("osnet_x0_25", tmp_path / "w.pt").base.eval()
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        for ours, stage in zip(base(x), theirs.stages(x), strict=True):
            torch.testing.assert_close(ours, stage.relu())


def test_a_vit_of_another_input_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=9)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    table = started("timm:vit_tiny_patch16_224", tmp_path / "w.pt").base.get_parameter(
        "body.pos_embed"
    )
    assert table.shape == (1, 1 + 8 * 4, 192)
    assert torch.equal(table[:, 0], theirs.pos_embed[:, 0])


def test_another_network_is_refused(tmp_path: Path, mobilenet: dict[str, Tensor]) -> None:
    torch.save(mobilenet, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"lacks features.* expected weights of efficientnet"):
        started("efficientnet_b0", tmp_path / "w.pt")
    assert NetworkConfig(backbone="efficientnet_b0").map_height == 24
