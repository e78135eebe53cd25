"""No command writes over what it reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import InputError
from sa_runtime.gallery.add import add_to
from sa_runtime.items import Row
from sa_runtime.linking.fit import LinkParameters
from sa_runtime.outputs.parquet import EmbeddingWriter
from sa_runtime.outputs.read import read_embeddings


@pytest.fixture
def folder(tiny_onnx_model: Path, synthetic_root: Path, tmp_path: Path) -> Path:
    shutil.copy(tiny_onnx_model, tmp_path / "model.onnx")
    shutil.copytree(synthetic_root / "query", tmp_path / "world" / "query")
    shutil.copytree(synthetic_root / "bounding_box_test", tmp_path / "world" / "bounding_box_test")
    (tmp_path / "world" / "bounding_box_train").mkdir()
    (tmp_path / "base.json").write_text("{}")
    stored(tmp_path)
    return tmp_path


def stored(folder: Path) -> None:
    """Drawn vectors of the model's space, as a file and as a folder, a gallery and parameters."""
    contract = read_contract(folder / "model.onnx")
    rows = [Row(f"{i}.jpg", i, float(i), i, 0, 0, 4, 8, None, "c1") for i in range(8)]
    vectors = np.random.default_rng(0).normal(size=(8, contract.output.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with EmbeddingWriter(folder / "people.parquet", contract) as writer:
        writer.write(rows, vectors)
    (folder / "folder").mkdir()
    shutil.copy(folder / "people.parquet", folder / "folder" / "part-00000.parquet")
    add_to(folder / "gallery", [read_embeddings(folder / "people.parquet")])
    LinkParameters.calibrated(contract.space, 0.5, 8).write(folder / "link.json")


@pytest.mark.parametrize(
    "words",
    [
        "bench {0}/model.onnx --out {0}/model.onnx",
        "bench {0}/model.onnx --picture {0}/model.onnx",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --picture {0}/world/a.png",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --per-query {0}/world/a.parquet",
        "evaluate {0}/model.onnx -d synthetic --data-dir {0}/world --report {0}/world",
        "evaluate {0}/people.parquet -d synthetic --data-dir {0}/world --per-query "
        "{0}/people.parquet",
        "embed {0}/model.onnx {0}/world/query --out {0}/world/query/people.parquet",
        "embed {0}/model.onnx {0}/world/query --out {0}/model.onnx/",
        "index {0}/people.parquet --out {0}/people.parquet",
        "index {0}/folder --out {0}/folder/gallery",
        "search {0}/gallery --vectors {0}/people.parquet --picture {0}/gallery/a.png",
        "link {0}/people.parquet --parameters {0}/link.json --out {0}/people.parquet",
        "link {0}/people.parquet --parameters {0}/link.json --out {0}/link.json",
        "link {0}/folder --parameters {0}/link.json --picture {0}/folder/a.png",
        "link {0}/people.parquet --fit {0}/people.parquet",
        "compress {0}/model.onnx --fit {0}/people.parquet --dim 4 --out {0}/model.onnx",
    ],
)
def test_the_target_is_refused_and_nothing_changes(folder: Path, words: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, words.format(folder).split())
    assert isinstance(result.exception, InputError), result.output
    assert "read; write" in str(result.exception) or "expected" in str(result.exception)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
