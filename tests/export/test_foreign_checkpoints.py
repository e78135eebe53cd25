"""Checkpoints of others: which network they are of, and vectors against that network in torch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_export.adopt import contract_of_foreign
from sa_export.families.base import Network, Wanted
from sa_export.families.table import network_of
from sa_export.foreign import ModelHints, read_foreign
from sa_export.foreign_weights import read_foreign_weights
from sa_export.preprocessing import PRESETS, Preprocessing
from sa_export.space import probe_crops
from sa_runtime.errors import CheckpointError, InputError
from sa_runtime.runners.opening import open_runner
from sa_training.architectures.fastreid import FastReidBackbone, resnet_of
from sa_training.architectures.heads import ReidHead, ReidNetwork, pooling
from sa_training.architectures.osnet import OSNet, osnet_config

Images = NDArray[np.uint8]


def seeded(network: nn.Module) -> nn.Module:
    """Statistics of their own for batch norms, so that leaving one out is seen."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.6, 1.4, generator=generator)
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
    return network.eval()


def expected(network: nn.Module, images: Images, preprocessing: Preprocessing) -> Any:
    """Unit vectors by torch, in float64."""
    pixels = torch.from_numpy(preprocessing.apply(images)).permute(0, 3, 1, 2).double()
    with torch.inference_mode():
        return nn.functional.normalize(network.double()(pixels).flatten(1), dim=1).numpy()


@pytest.fixture(scope="module")
def osnet() -> nn.Module:
    torch.manual_seed(0)
    return seeded(OSNet(osnet_config("osnet_x0_25")))


@pytest.fixture(scope="module")
def osnet_file(osnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchreid's engine saves it: DataParallel's names, a classifier, NumPy's numbers."""
    path = tmp_path_factory.mktemp("torchreid") / "model.pth.tar-60"
    weights = {f"module.{name}": value for name, value in osnet.state_dict().items()}
    weights["module.classifier.weight"] = torch.zeros(751, 512)
    weights["module.classifier.bias"] = torch.zeros(751)
    content = {"state_dict": weights, "epoch": 60, "rank1": np.float64(0.9)}
    torch.save({**content, "args": argparse.Namespace(lr=0.1)}, path)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", ["reid.onnx", "reid.xml", "reid.torchscript"])
def test_osnet_goes_from_checkpoint_to_every_format(
    name: str, osnet: nn.Module, osnet_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    words = ["--height", 64, "--width", 32, "--validation-crops", 12]
    done = run("adopt", osnet_file, "--out", out, *words, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["dim"] == 512
    images = probe_crops(64, 32)
    with open_runner(out) as runner:
        found = runner.run(images)
        assert runner.contract.network["architecture"] == "osnet_x0_25"
    np.testing.assert_allclose(found, expected(osnet, images, Preprocessing()), atol=1e-5)
    osnet.float()
    shown = run("inspect", out)
    assert "osnet_x0_25" in shown.stdout


def test_a_checkpoint_is_looked_at_before(osnet_file: Path) -> None:
    done = run("inspect", osnet_file)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for words in (
        "osnet_x0_25 of torchreid, pixels RGB, divided by 255",
        "0.16 GFLOP an image of 256x128",
        "a classifier of 751 classes",
        "weights under 'state_dict'",
    ):
        assert words in text
    assert "sa-deploy adopt model.pth.tar-60 --out model.onnx" in done.stderr


def test_two_files_of_one_function_share_a_space(
    osnet: nn.Module, osnet_file: Path, tmp_path: Path
) -> None:
    """The checkpoint, and a TorchScript file of the same network; another colour order does not."""
    script = tmp_path / "osnet.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        traced = torch.jit.trace(osnet.float(), torch.zeros(1, 3, 64, 32))  # type: ignore[no-untyped-call]
        traced.save(str(script))
    words = ["--height", 64, "--width", 32, "--validation-crops", 12, "--json"]
    spaces = []
    for source, more in ((osnet_file, []), (script, []), (script, ["--colour", "bgr"])):
        done = run("adopt", source, "--out", tmp_path / "a.onnx", *words, *more)
        assert done.exit_code == 0, done.output
        spaces.append(json.loads(done.stdout)["space"])
    assert spaces[0] == spaces[1] != spaces[2]


def fast_reid_weights() -> tuple[nn.Module, dict[str, Tensor]]:
    """A BoT on ResNet-18 under fast-reid's names."""
    torch.manual_seed(1)
    with torch.device("meta"):
        trunk = torchvision.models.resnet18().state_dict()
    resnet = resnet_of(trunk, 1)
    assert resnet is not None
    network = ReidNetwork(FastReidBackbone(resnet, trunk), ReidHead(pooling("avg"), 512, neck=True))
    seeded(network)
    weights = {}
    for name, value in network.state_dict().items():
        weights[name.replace("head.neck.", "heads.bottleneck.0.")] = value
    weights["heads.weight"] = torch.zeros(702, 512)
    return network, weights


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(content: object, name: str = "w.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def recognised(path: Path, **options: Any) -> Network:
    return network_of(read_foreign_weights(path), Wanted(), **options)


def test_fast_reid_is_told_by_its_names(saved: Any) -> None:
    network, weights = fast_reid_weights()
    found = recognised(saved({"model": weights, "iteration": 1}))
    assert (found.family, found.arch, found.classes) == ("fast-reid", "BoT R18", 702)
    x = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found.module(x), network(x))
    pixels = {"pixel_mean": torch.full((3,), 127.5), "pixel_std": torch.full((3,), 50.0)}
    older = {**weights, **pixels}
    stated = recognised(saved({"model": older})).stated
    assert stated is not None
    assert (stated.divisor, stated.mean) == (1, (127.5, 127.5, 127.5))


def test_resnets_are_told_apart_by_what_is_behind_them(saved: Any) -> None:
    """torchreid's, torchvision's, and Luo's strong baseline, whose last stride differs."""
    plain = torchvision.models.resnet18().state_dict()
    trunk = {k: v for k, v in plain.items() if not k.startswith("fc.")}
    classifier = {"classifier.weight": torch.zeros(751, 512), "classifier.bias": torch.zeros(751)}
    norm = {f"bottleneck.{k}": v for k, v in nn.BatchNorm1d(512).state_dict().items()}
    layer = {"fc.0.weight": torch.zeros(128, 512), "fc.0.bias": torch.zeros(128)}
    layer |= {f"fc.1.{k}": v for k, v in nn.BatchNorm1d(128).state_dict().items()}
    based = {f"base.{k}": v for k, v in trunk.items()}
    files = {
        ("torchvision", "resnet18", 2): plain,
        ("torchreid", "resnet18", 2): trunk | classifier,
        ("torchreid", "resnet18_fc128", 1): trunk | layer | classifier,
        ("reid-strong-baseline", "BoT resnet18", 1): based | norm | classifier,
    }
    for (family, arch, stride), weights in files.items():
        found = recognised(saved(weights))
        assert (found.family, found.arch) == (family, arch)
        assert f"last stride {stride}" in found.notes[0]
        last = next(m for n, m in found.module.named_modules() if n.endswith("layer4.0.conv1"))
        assert isinstance(last, nn.Conv2d)
        assert last.stride == (stride, stride)


def test_what_is_not_known_says_what_to_name(saved: Any) -> None:
    convnext = torchvision.models.mobilenet_v3_small().state_dict()
    with pytest.raises(CheckpointError, match="look like torchvision's: name the architecture"):
        recognised(saved(convnext))
    found = recognised(saved(convnext), arch="torchvision/mobilenet_v3_small")
    assert found.embedding == "1024 numbers before the last linear layer (classifier.3)"
    assert found.left_out == ("classifier.3.weight", "classifier.3.bias")
    with pytest.raises(
        CheckpointError, match=r"lacks features\.1\.conv.*not those of torchvision's"
    ):
        recognised(saved(convnext), arch="torchvision/mobilenet_v2")
    with pytest.raises(InputError, match="arch='nothing': unknown; expected torchreid, fastreid"):
        recognised(saved(convnext), arch="nothing")
    vit = {"cls_token": torch.zeros(1, 1, 384), "pos_embed": torch.zeros(1, 129, 384)}
    vit["patch_embed.proj.weight"] = torch.zeros(384, 3, 16, 16)
    with pytest.raises(CheckpointError, match="arch=timm/vit_small_patch16_224"):
        recognised(saved(vit))
    with pytest.raises(CheckpointError, match=r"none of its weights is of `factory='torchvis"):
        recognised(saved(vit), factory="torchvision.models:resnet18")


def test_weights_of_another_osnet_are_refused(osnet_file: Path) -> None:
    with pytest.raises(CheckpointError, match="`; they are of osnet_x0_25"):
        recognised(osnet_file, arch="osnet_x1_0")


def test_a_factory_of_ones_own(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the working folder; what its vectors do not depend on may be missing."""
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 8, 3)\n"
        "        self.classifier = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        v = self.conv(x).mean((2, 3))\n"
        "        return (self.classifier(v), v) if self.training else (v,)\n"
        "def make(num_classes, pretrained=True):\n"
        "    assert not pretrained\n"
        "    return Net(num_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    weights = {"conv.weight": torch.rand(8, 3, 3, 3), "conv.bias": torch.rand(8)}
    found = recognised(saved({"state_dict": weights}), factory="my_networks:make")
    assert found.module(torch.rand(2, 3, 16, 8)).shape == (2, 8)
    named = recognised(saved({"state_dict": weights}), arch="my_networks:make")
    assert (named.family, named.arch) == (found.family, found.arch)
    with pytest.raises(CheckpointError, match=r"lacks conv.bias, .* on which the vectors of"):
        recognised(saved({"conv.weight": weights["conv.weight"]}), factory="my_networks:make")
    for spec, text in {
        "my_networks": "expected package.module:function",
        "my_networks:absent": "cannot be called",
        "os:getcwd": "gives str, expected a torch.nn.Module",
    }.items():
        with pytest.raises(InputError, match=text):
            recognised(saved(weights), factory=spec)


def test_files_that_hold_no_weights_say_what_they_hold(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds epoch, cfg, and no weights under state_dict"):
        read_foreign_weights(saved({"epoch": 1, "cfg": {}}))
    with pytest.raises(CheckpointError, match=r"Python objects \(torch.nn.modules.linear.Linear\)"):
        read_foreign_weights(saved(nn.Linear(2, 2)))
    broken = tmp_path / "broken.pth"
    broken.write_bytes(saved({"a": torch.zeros(99)}).read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a whole checkpoint of torch"):
        read_foreign_weights(broken)


def transformer_weights(width: int, places: int) -> tuple[Any, dict[str, Tensor]]:
    """timm's transformer of one block, and its weights."""
    timm = pytest.importorskip("timm", reason="timm is not installed: no vision transformer here")
    torch.manual_seed(0)
    name = {192: "vit_tiny_patch16_224", 768: "vit_base_patch16_clip_quickgelu_224"}[width]
    network = timm.create_model(name, num_classes=0, depth=1, img_size=(16, 16 * places)).eval()
    nn.init.normal_(network.pos_embed)
    return network, dict(network.state_dict())


def test_transreid_is_told_with_touching_and_overlapping_patches(saved: Any) -> None:
    for size, step, places in (((64, 32), 16, 8), ((64, 32), 12, 10)):
        network, weights = transformer_weights(192, places)
        named = {f"base.{name}": value for name, value in weights.items()}
        head = {"base.fc.weight": torch.zeros(1000, 192), "classifier.weight": torch.zeros(9, 192)}
        file = saved(named | head | {"bottleneck.weight": torch.ones(192)})
        wanted = Wanted(height=size[0], width=size[1])
        found = network_of(read_foreign_weights(file), wanted)
        assert (found.family, found.classes) == ("TransReID", 9)
        assert f"patches every {step} pixels" in found.notes[0]
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            cut = nn.functional.unfold(images, 16, stride=step)  # (N, 3 * 16 * 16, places)
            side_by_side = nn.functional.fold(cut, (16, 16 * places), 16, stride=16)
            torch.testing.assert_close(found.vectors(images), network(side_by_side))
    sie = named | head | {"base.sie_embed": torch.zeros(6, 1, 192)}
    with pytest.raises(CheckpointError, match=r"depend on the camera of each crop .*of 6 cameras"):
        network_of(read_foreign_weights(saved(sie)), wanted)
    jigsaw = named | {"b1.0.norm1.weight": torch.ones(192)}
    with pytest.raises(CheckpointError, match="jigsaw branches"):
        network_of(read_foreign_weights(saved(jigsaw)), wanted)
    with pytest.raises(InputError, match=r"has 10 patches, which 128x64 pixels do not give"):
        network_of(read_foreign_weights(saved(named | head)), Wanted(height=128, width=64))


def test_clip_reid_gives_its_token_and_the_projection(saved: Any) -> None:
    network, weights = transformer_weights(768, 8)
    own = {
        name.replace("patch_embed.proj", "conv1")
        .replace("norm_pre", "ln_pre")
        .replace("blocks.", "transformer.resblocks.")
        .replace("norm1", "ln_1")
        .replace("norm2", "ln_2")
        .replace("attn.qkv.", "attn.in_proj_")
        .replace("attn.proj", "attn.out_proj")
        .replace("mlp.fc1", "mlp.c_fc")
        .replace("mlp.fc2", "mlp.c_proj"): value
        for name, value in weights.items()
        if name not in ("cls_token", "pos_embed", "norm.weight", "norm.bias")
    }
    own |= {"ln_post.weight": weights["norm.weight"], "ln_post.bias": weights["norm.bias"]}
    own |= {"class_embedding": weights["cls_token"].flatten()}
    own |= {"positional_embedding": weights["pos_embed"][0], "proj": torch.randn(768, 12)}
    named = {f"image_encoder.{name}": value for name, value in own.items()}
    beside = {"classifier.weight": torch.zeros(9, 768), "prompt_learner.cls_ctx": torch.zeros(3)}
    wanted = Wanted(height=64, width=32)
    found = network_of(read_foreign_weights(saved(named | beside)), wanted)
    assert (found.family, found.classes) == ("CLIP-ReID", 9)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        cut = nn.functional.unfold(images, 16, stride=16)
        token = network(nn.functional.fold(cut, (16, 128), 16, stride=16))
        expected = torch.cat([token, token @ own["proj"]], dim=1)
        torch.testing.assert_close(found.vectors(images), expected)
    for more, text in (
        ({"cv_embed": torch.zeros(6, 768)}, "depend on the camera"),
        ({"image_encoder.class_embedding": None}, "CLIP-ReID on a ResNet"),
    ):
        changed = {k: v for k, v in (named | more).items() if v is not None}
        with pytest.raises(CheckpointError, match=text):
            network_of(read_foreign_weights(saved(changed)), wanted)


def test_work_is_counted_in_torch_where_a_graph_does_not_tell(osnet_file: Path) -> None:
    found = read_foreign(osnet_file, ModelHints(height=64, width=32))
    untold = dataclasses.replace(found, image="of no known shape")
    counted = [
        contract_of_foreign(model, PRESETS["torchreid"], "osnet").flops for model in (found, untold)
    ]
    assert counted[0] > 1e6
    assert counted[1] == pytest.approx(counted[0], rel=0.01)
