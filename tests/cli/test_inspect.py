"""``sa-deploy inspect``: what a newcomer reads, and files that are not what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_export.onnx_graph import OnnxWriter
from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.errors import ContractError, InputError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def artefacts(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("artefacts")
    words = ["export", tiny_checkpoint, "--onnx", "--openvino", "--torchscript", "--torch-export"]
    words += ["--embedding", "parts,global", "--attention-map", "--out", folder]
    words += ["--validation", synthetic_root, "--validation-crops", 40]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.torchscript", "model.pt2"])
def test_every_format_answers_what_a_newcomer_asks(artefacts: Path, name: str) -> None:
    done = run(artefacts / name)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for answer in (
        "(N, 128, 64, 3) uint8, BGR pixels 0 to 255, as OpenCV reads them",
        "normalisation is inside the graph",
        "crops resized to 64x128 by bilinear-antialias",
        "(N, 1536) float32, rows of unit length: parts (horizontal parts of the last map, the "
        "authors' test feature), feature space",
        "(N, 256) float32, rows of unit length: global (the last map pooled once), feature space",
        "(N, 8, 4) float32, attention map of mean 1",
        "0.13 GFLOP an image",
        "precision fp32",
        "runs on ",
        "recipe tiny",
        "backbone resnet10-thin",
        "Compared with its network: parts",
    ):
        assert answer in text, answer
    crops = re.search(r" (\d+) crops \(", text)
    assert crops is not None
    assert 30 < int(crops[1]) <= 44
    assert text.index("its network: parts") < text.index("its network: global")
    assert "sa-deploy embed" in done.stderr


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("model.onnx", {"Conv": 12, "AttentionPool": 2}),
        ("model.xml", {"Convolution": 12, "AvgPool": 2}),
        ("model.torchscript", {"_convolution": 12, "avg_pool2d": 2}),
        ("model.pt2", {"conv2d": 12, "avg_pool2d": 2}),
    ],
)
def test_operators_are_counted_in_every_format(
    artefacts: Path, name: str, operators: dict[str, int]
) -> None:
    done = run(artefacts / name, "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    found = result["graph"]["operators"]
    assert {kind: found[kind] for kind in operators} == operators
    assert result["size_bytes"] > 4_900_000
    assert result["contract"]["output"]["dim"] == 1536


def test_weights_are_counted_by_type(artefacts: Path) -> None:
    for name in ("model.onnx", "model.xml"):
        weights = json.loads(run(artefacts / name, "--json").stdout)["graph"]["weights"]
        assert 1_228_000 < weights["float32"] < 1_230_000


def test_a_graph_that_is_not_its_contracts_is_refused_with_what_differs(
    tiny_onnx_model: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(tiny_onnx_model))
    text = next(item.value for item in model.metadata_props if item.key == METADATA_KEY)
    path = tmp_path / "changed.onnx"

    def refused(contract: str) -> str:
        OnnxWriter(model)({METADATA_KEY: contract}, path)
        done = run(path)
        assert isinstance(done.exception, ContractError)
        return str(done.exception)

    assert "its contract was changed after it was written" in refused(
        text.replace('"height": 128', '"height": 256', 1)
    )
    import dataclasses

    honest = Contract.from_json(text, source="test")
    taller = dataclasses.replace(honest, input=dataclasses.replace(honest.input, height=256))
    assert "images is uint8 (N, 128, 64, 3), the contract says uint8 (N, 256, 64, 3)" in refused(
        taller.to_json()
    )
    renamed = dataclasses.replace(honest, output=dataclasses.replace(honest.output, name="y"))
    message = refused(renamed.to_json())
    assert "y is absent, the contract says float32 (N, 1536)" in message
    assert "embeddings is not in the contract" in message


def test_a_checkpoint_of_our_own_is_looked_at(tiny_checkpoint: Path) -> None:
    done = run(tiny_checkpoint)
    assert done.exit_code == 0, done.output
    assert "sa-deploy's own, recipe tiny, resnet10-thin, epoch 1" in done.stdout
    assert "sa-deploy export" in done.stdout


def test_a_network_that_must_be_named_says_how_adopt_takes_the_name(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, file)
    done = run(file)
    assert done.exit_code == 0, done.output
    assert "--arch timm/mobilenetv2_100" in " ".join(done.stdout.split())


def test_files_without_a_contract_are_told_what_to_do(
    tiny_onnx_model: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(tiny_onnx_model))
    path = tmp_path / "bare.onnx"
    OnnxWriter(model)({}, path)
    done = run(path)
    assert done.exit_code == 0
    assert "it takes bytes: an artefact that lost its contract? export it again" in done.stdout
    path.write_bytes(tiny_onnx_model.read_bytes()[:-400])
    done = run(path)
    assert isinstance(done.exception, InputError)
    assert "not a whole ONNX file" in str(done.exception)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    assert "no TorchScript file and no checkpoint of torch" in str(run(text).exception)
    assert "no such file" in str(run(tmp_path / "absent.onnx").exception)
