"""No command writes over what it reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import InputError


@pytest.fixture
def folder(tiny_onnx_model: Path, synthetic_root: Path, tmp_path: Path) -> Path:
    shutil.copy(tiny_onnx_model, tmp_path / "model.onnx")
    shutil.copytree(synthetic_root / "query", tmp_path / "world" / "query")
    shutil.copytree(synthetic_root / "bounding_box_test", tmp_path / "world" / "bounding_box_test")
    (tmp_path / "world" / "bounding_box_train").mkdir()
    (tmp_path / "base.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "bench {0}/model.onnx --out {0}/model.onnx",
        "bench {0}/model.onnx --picture {0}/model.onnx",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --picture {0}/world/a.png",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --per-query {0}/world/a.parquet",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --report {0}/world",
        "embed {0}/model.onnx {0}/world/query --out {0}/world/query/people.parquet",
        "embed {0}/model.onnx {0}/world/query --out {0}/model.onnx/",
    ],
)
def test_the_target_is_refused_and_nothing_changes(folder: Path, words: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, words.format(folder).split())
    assert isinstance(result.exception, InputError), result.output
    assert "read; write" in str(result.exception) or "expected" in str(result.exception)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
