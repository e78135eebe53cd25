"""``sa-deploy export`` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sa_deploy.app import app, main
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import CheckpointError, InputError, ParityError

pytestmark = pytest.mark.usefixtures("exports_share")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_several_formats_and_embeddings_in_one_go(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    done = run(
        *(tiny_checkpoint, "--onnx", "--openvino", "--embedding", "global,reduced"),
        *("--validation", synthetic_root, "--validation-crops", 40, "--out", tmp_path, "--json"),
    )
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    files = [Path(artefact["file"]).name for artefact in result["artefacts"]]
    assert files == ["model.onnx", "model.xml"]
    for artefact in result["artefacts"]:
        assert list(artefact["parity"]) == ["global", "reduced"]
        assert artefact["parity"]["global"]["min_cosine"] > 0.99999
        assert read_contract(Path(artefact["file"])).output.embedding == "global"
    assert "comparing model.onnx (global) with the network on onnxruntime" in done.stderr


def test_bare_weights_the_users_own_crops_and_another_size(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(torch.load(tiny_checkpoint, weights_only=True)["state_dict"], bare)
    done = run(
        *(bare, "--recipe", "tiny", "--onnx", "--height", 160, "--width", 64, "--no-plugin"),
        *("--validation", synthetic_root, "--validation-crops", 40, "--out", tmp_path, "--json"),
    )
    assert done.exit_code == 0, done.output
    (artefact,) = json.loads(done.stdout)["artefacts"]
    assert artefact["contract"]["input"]["height"] == 160
    assert artefact["contract"]["recipe"] == "tiny"
    assert artefact["parity"]["parts"]["validation"] == str(synthetic_root)
    assert artefact["parity"]["parts"]["crops"] <= 44


def test_int8_is_calibrated_on_the_users_crops(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    done = run(
        *(tiny_checkpoint, "--onnx", "--precision", "int8", "--int8-target", "cpu"),
        *("--calibration", synthetic_root, "--calibration-crops", 24, "--calibrator", "mse"),
        *("--validation", synthetic_root, "--max-map-drop", 100, "--out", tmp_path),
    )
    assert done.exit_code == 0, done.output
    contract = read_contract(tmp_path / "model.int8.onnx")
    said = contract.quantization
    assert (said["calibration_crops"], said["calibrator"], said["target"]) == (24, "mse", "cpu")
    assert said["calibration"] == str(synthetic_root)
    assert "same first match" in done.stdout


def test_a_gate_that_is_not_kept_ends_with_exit_code_3(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["sa-deploy", "export", str(tiny_checkpoint), "--onnx", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "--min-cosine", "1.5"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert "expected at least 1.5 (--min-cosine)" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_an_older_good_file_survives_a_failed_export(
    tiny_checkpoint: Path, tiny_onnx_model: Path, tmp_path: Path
) -> None:
    older = tmp_path / "model.onnx"
    older.write_bytes(tiny_onnx_model.read_bytes())
    done = run(tiny_checkpoint, "--onnx", "--out", tmp_path, "--min-cosine", "1.5")
    assert isinstance(done.exception, ParityError)
    assert older.read_bytes() == tiny_onnx_model.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_foreign_onnx_file_is_called_what_it_is(tiny_onnx_model: Path, tmp_path: Path) -> None:
    done = run(tiny_onnx_model, "--onnx", "--precision", "int8", "--out", tmp_path)
    assert isinstance(done.exception, CheckpointError)
    assert "model.onnx: an ONNX model, no checkpoint; expected the .pt" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_than_the_files_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = run(tiny_checkpoint, "--recipe", "sa", "--onnx", "--out", tmp_path)
    assert isinstance(done.exception, InputError)
    assert "checkpoint.pt says its own recipe, tiny; leave it out" in str(done.exception)


def test_without_a_format_the_choices_are_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = run(tiny_checkpoint, "--out", tmp_path)
    assert isinstance(done.exception, InputError)
    assert "no format chosen; expected --format with one of onnx, torchscript" in str(
        done.exception
    )
