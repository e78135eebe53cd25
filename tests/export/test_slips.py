"""What a user says wrongly of a foreign model is refused or warned of, by the option's name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_deploy.errors import for_command, running_command
from sa_export.look import look
from sa_export.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PRESETS,
    Preprocessing,
    PreprocessingHints,
    chosen_preprocessing,
)
from sa_runtime.errors import InputError, SaDeployError
from sa_training.architectures.osnet import OSNet, osnet_config
from tests.export.test_foreign_checkpoints import fast_reid_weights, seeded


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["adopt", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of torchreid, one of fast-reid that states its pixels, and an ONNX file."""
    folder = tmp_path_factory.mktemp("slips")
    torch.manual_seed(0)
    torch.save(seeded(OSNet(osnet_config("osnet_x0_25"))).state_dict(), folder / "osnet.pth")
    _, weights = fast_reid_weights()
    mean, std = (torch.tensor(x) for x in (PRESETS["fastreid"].mean, PRESETS["fastreid"].std))
    torch.save({"model": {**weights, "pixel_mean": mean, "pixel_std": std}}, folder / "bot.pth")
    write_onnx(folder / "two.onnx")
    return folder


def write_onnx(path: Path, *, batch: int | None = 1, classes: int = 751) -> None:
    """A convolution, its map, the pooled vector behind a batch norm, and logits."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(size=(6, 3, 3, 3)),
        "c": rng.normal(size=(6, classes)),
        "scale": rng.uniform(0.5, 1.5, 6),
        "shift": rng.normal(size=6),
        "mean": rng.normal(size=6),
        "var": rng.uniform(0.5, 1.5, 6),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node(
            "BatchNormalization", ["flat", "scale", "shift", "mean", "var"], ["after_bn"]
        ),
        helper.make_node("MatMul", ["after_bn", "c"], ["logits"]),
    ]
    size = batch or "N"
    shapes = {"map": [size, 6, 30, 14], "flat": [size, 6], "after_bn": [size, 6]}
    shapes["logits"] = [size, classes]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "two",
        [value("input", TensorProto.FLOAT, [size, 3, 32, 16])],
        [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))


def said(done: Result, words: list[str]) -> str:
    """The error as the command line says it, or the notes."""
    if done.exception is None:
        return done.stderr
    assert isinstance(done.exception, SaDeployError), done.output
    from typer.main import get_command

    command = running_command(get_command(app), ["adopt", *words])
    return for_command(done.exception, command)


BY_255 = "123.675,116.28,103.53"
SLIPS: dict[str, tuple[str, str, bool, str]] = {
    "mean of whole pixels": (
        "osnet.pth",
        f"--mean {BY_255} --std 58,57,57",
        True,
        "--mean 123.675",
    ),
    "divisor of whole pixels": ("osnet.pth", "--divisor 1", True, "--divisor 1"),
    "mean against the file": ("bot.pth", "--mean 0,0,0", True, "--mean"),
    "preset against the file": ("bot.pth", "--preprocessing half", True, "--preprocessing half"),
    "colour against the file": ("bot.pth", "--colour bgr", True, "--colour"),
    "divisor against the file": ("bot.pth", "--divisor 2", True, "--divisor"),
    "mean against its preset": (
        *("osnet.pth", "--preprocessing torchreid --mean 0.5,0.5,0.5", True),
        "--mean",
    ),
    "an unknown preset": ("osnet.pth", "--preprocessing yolo", True, "--preprocessing yolo"),
    "colour against the family": ("osnet.pth", "--colour bgr", False, "--colour"),
    "mean against the family": ("osnet.pth", "--mean 0.5,0.5,0.5", False, "--mean"),
    "imagenet's figures the other way": (
        *("two.onnx", "--output after_bn --colour bgr", False),
        "--colour bgr",
    ),
    "logits": ("two.onnx", "--output logits", False, "--output"),
    "a map": ("two.onnx", "--output map", True, "--output"),
    "no output chosen": ("two.onnx", "", True, "--output"),
    "a size that the graph has not": ("two.onnx", "--output flat --height 64", True, "--height 64"),
    "sides exchanged": ("osnet.pth", "--height 32 --width 64", False, "--height"),
    "a fixed batch": ("two.onnx", "--output after_bn", False, "--dynamic-batch"),
    "an architecture of ONNX": ("two.onnx", "--output flat --arch osnet_x1_0", True, "--arch"),
    "an output of a checkpoint": ("osnet.pth", "--output features", True, "--output features"),
    "an input of a checkpoint": ("osnet.pth", "--image-input x", True, "--image-input x"),
    "another architecture": ("osnet.pth", "--arch osnet_x1_0", True, "--arch"),
}
"""Slip -> file, options, whether it is refused, the option that the message names."""


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named(slip: str, files: Path, tmp_path: Path) -> None:
    file, options, refused, option = SLIPS[slip]
    words = options.split()
    if file != "two.onnx" and "--height" not in words:
        words += ["--height", "64", "--width", "32"]
    done = run(files / file, "--out", tmp_path / "a.onnx", "--validation-crops", 12, *words)
    assert (done.exit_code != 0) == refused, done.output
    assert option in said(done, words)
    assert (tmp_path / "a.onnx").exists() != refused


def test_what_is_right_is_not_warned_of(files: Path, tmp_path: Path) -> None:
    done = run(
        *(files / "osnet.pth", "--out", tmp_path / "a.onnx", "--validation-crops", 12),
        *("--height", 64, "--width", 32, "--preprocessing", "boxmot"),
    )
    assert done.exit_code == 0, done.output
    assert "warning" not in done.stderr


def test_two_outputs_of_one_file_have_two_spaces(files: Path, tmp_path: Path) -> None:
    from sa_runtime.artefact.metadata import read_contract

    spaces = set()
    for output in ("flat", "after_bn"):
        out = tmp_path / f"{output}.onnx"
        done = run(files / "two.onnx", "--out", out, "--output", output, "--validation-crops", 12)
        assert done.exit_code == 0, done.output
        spaces.add(read_contract(out).space)
    assert len(spaces) == 2


def test_a_graph_is_looked_at_before(files: Path) -> None:
    found = look(files / "two.onnx")
    meanings = {tensor.name: tensor.meaning for tensor in found.outputs}
    assert meanings["map"] == "a map"
    assert meanings["after_bn"] == "a vector behind a batch norm"
    assert meanings["flat"] == "a vector behind the pooling"
    assert meanings["logits"] == "logits: as many as Market-1501 has classes"
    assert (found.embedding, found.batch, found.opset) == ("after_bn", 1, 17)
    assert found.flops == 2 * 6 * 30 * 14 * 27 + 2 * 6 * 751
    assert "--output after_bn" in found.adopt
    assert any("--dynamic-batch" in text for text in found.notes)


def test_presets_say_the_same_in_two_ways() -> None:
    assert PRESETS["torchreid"].differs(PRESETS["fastreid"]) == []
    assert PRESETS["torchreid"].differs(PRESETS["half"]) == ["mean", "std"]
    reversed_figures = Preprocessing(colour="bgr", mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1])
    assert reversed_figures.differs(PRESETS["torchreid"])[0] == "colour"
    with pytest.raises(InputError, match="mean and std of pixels from 0 to 255, but pixels are"):
        dataclasses.replace(PRESETS["fastreid"], divisor=255.0)
    chosen, warnings = chosen_preprocessing(
        PreprocessingHints(preset="fastreid"), own=None, stated=PRESETS["torchreid"], name="x"
    )
    assert (chosen, warnings) == (PRESETS["fastreid"], [])


def test_raw_files_are_measured_beside_what_was_made_of_them(files: Path, tmp_path: Path) -> None:
    """ONNX, and a network as checkpoint and as TorchScript."""
    import json
    import warnings

    model = onnx.load(str(files / "two.onnx"))
    kept = [value for value in model.graph.output if value.name == "after_bn"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(tmp_path / "raw.onnx"))
    network = OSNet(osnet_config("osnet_x0_25")).eval()
    network.load_state_dict(torch.load(files / "osnet.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        traced = torch.jit.trace(network, torch.zeros(1, 3, 64, 32))  # type: ignore[no-untyped-call]
        traced.save(str(tmp_path / "raw.torchscript"))

    def measured(*raw: Path, runtimes: str, size: list[object]) -> list[dict[str, Any]]:
        adopted = tmp_path / f"{raw[0].name}.onnx"
        words = ["--validation-crops", 12, *size]
        assert run(raw[0], "--out", adopted, *words).exit_code == 0
        chosen = [word for name in runtimes.split() for word in ("--runtime", name)]
        given = ["bench", *raw, adopted, *chosen, "--batch-sizes", 2, "--iterations", 2, "--json"]
        done = CliRunner().invoke(app, list(map(str, given)))
        assert done.exit_code == 0, (done.output, done.exception)
        found: list[dict[str, Any]] = json.loads(done.stdout)["contenders"]
        return found

    graphs = measured(tmp_path / "raw.onnx", runtimes="onnxruntime", size=["--dynamic-batch"])
    assert [found["model"] for found in graphs] == ["raw.onnx", "raw.onnx.onnx"]
    networks = measured(
        files / "osnet.pth",
        tmp_path / "raw.torchscript",
        runtimes="torchscript onnxruntime",
        size=["--height", 64, "--width", 32],
    )
    names = ["osnet.pth.torchscript", "raw.torchscript", "osnet.pth.onnx"]
    assert [found["model"] for found in networks] == names
    for found in (graphs, networks):
        assert all(other["flops"] == found[0]["flops"] > 0 for other in found)
        cosines = [other["cosine"]["min"] for other in found if other["cosine"]]
        assert cosines == pytest.approx([1] * (len(found) - 1), abs=1e-5)
    two = CliRunner().invoke(app, ["bench", str(files / "two.onnx")])
    assert "run `sa-deploy adopt` first" in str(two.exception)


EACH: dict[str, tuple[str, str, str]] = {
    "mean": (f"--mean {BY_255} --std 58,57,57", "refused", "--mean 123.675"),
    "divisor": ("--divisor 1", "refused", "--divisor 1"),
    "colour": ("--colour bgr", "warned", "--colour"),
    "output": ("--output logits", "refused", "--output logits"),
    "size": ("--height 32 --width 64", "either", "--height"),
}
"""Slip -> options, what is done about it, the option that is named.

A transformer's positions refuse another size, where convolutions take it."""
OF_WHOLE_PIXELS = {
    "mean": ("--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225", "refused", "--divisor"),
    "divisor": ("--divisor 255", "refused", "--mean"),
}
"""The same slips where the family leaves pixels at 0 to 255."""


def network_and_words(name: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Random seeded weights under the framework's names, and what tells the architecture."""
    torch.manual_seed(0)
    if name.startswith("osnet"):
        return seeded(OSNet(osnet_config(name))).state_dict(), []
    if name == "bot":
        return {"model": fast_reid_weights()[1]}, []  # type: ignore[dict-item]
    library, _, arch = name.partition("/")
    if library == "torchvision":
        import torchvision

        return seeded(torchvision.models.get_model(arch, weights=None)).state_dict(), [name]
    timm = pytest.importorskip("timm", reason="timm is not installed: none of its networks here")
    options = {"img_size": (64, 32)} if arch.startswith("vit") else {}
    return seeded(timm.create_model(arch, num_classes=9, **options)).state_dict(), [name]


@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    [
        *("osnet_x0_25", "osnet_x1_0", "bot", "timm/vit_small_patch16_224"),
        *("timm/mobilenetv2_100", "torchvision/convnext_tiny"),
    ],
)
def test_slips_are_named_on_every_kind_of_network(name: str, tmp_path: Path) -> None:
    weights, arch = network_and_words(name)
    file = tmp_path / "model.pth"
    torch.save(weights, file)
    words = ["--arch", *arch] if arch else []
    slips = EACH | (OF_WHOLE_PIXELS if name == "bot" else {})
    for slip, (options, outcome, option) in slips.items():
        given = [*words, *options.split()]
        if slip != "size":
            given += ["--height", "64", "--width", "32"]
        out = tmp_path / f"{slip}.onnx"
        done = run(file, "--out", out, "--validation-crops", 12, *given)
        assert option in said(done, given), (slip, done.output, done.exception)
        if outcome != "either":
            assert (done.exit_code != 0) == (outcome == "refused"), (slip, done.output)
        assert out.exists() == (done.exit_code == 0)
