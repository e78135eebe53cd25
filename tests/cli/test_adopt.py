"""``sa-deploy adopt`` as a user types it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_runtime.errors import InputError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["adopt", *map(str, arguments)])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as torch's exporter writes it: NCHW, dynamic batch, (N, 8, 1, 1) out."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    path = tmp_path_factory.mktemp("foreign") / "osnet.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, 32, 16),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["images"],
            output_names=["output"],
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return path


def test_an_adopted_model_is_embedded_with_and_inspected(foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "adopted.onnx"
    done = run(
        *(foreign, "--out", out, "--embedding", "osnet", "--mean", "0.5,0.5,0.5"),
        *("--std", "0.5,0.5,0.5", "--json"),
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["dim"] == 8
    assert result["parity"]["min_cosine"] > 0.99999
    seen = CliRunner().invoke(app, ["inspect", str(out)], env={"COLUMNS": "200"})
    text = " ".join(seen.stdout.split())
    assert "adopted from osnet.onnx" in text
    assert "(N, 32, 16, 3) uint8, BGR pixels" in text
    assert "rows of unit length: osnet" in text


def test_numbers_that_are_none_are_refused(foreign: Path, tmp_path: Path) -> None:
    done = run(foreign, "--out", tmp_path / "a.onnx", "--mean", "0.5")
    assert isinstance(done.exception, InputError)
    assert "--mean 0.5: expected three numbers with commas between" in str(done.exception)
