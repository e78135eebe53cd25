"""``sa-deploy evaluate`` on the synthetic data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from sa_runtime import crops
from sa_runtime.datasets.table import load_dataset
from sa_runtime.retrieval.evaluation import labels_of
from sa_runtime.retrieval.metrics import evaluate_vectors
from tests.cli.invoke import Done, invoke

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def run(*arguments: object) -> Done:
    return invoke("evaluate", *arguments)


@pytest.fixture(scope="module")
def result(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    picture = tmp_path_factory.mktemp("evaluate") / "matches.png"
    done = run(
        *(tiny_model.path, "-d", "synthetic", "--data-dir", synthetic_root),
        *("--all-cmc", "--picture", picture, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_figures_are_those_of_the_models_own_arithmetic(
    result: tuple[dict[str, Any], Path], tiny_model: TinyModel, synthetic_root: Path
) -> None:
    dataset = load_dataset("synthetic", synthetic_root)
    sides: list[Any] = []
    for samples in (dataset.query, dataset.gallery):
        images = [crops.resize(crops.read_image(sample.path), 32, 16) for sample in samples]
        sides += [tiny_model.embed(np.stack(images)), labels_of(samples)]
    expected = evaluate_vectors(*sides)
    figures = result[0]
    assert figures["mAP"] == pytest.approx(expected.mAP, abs=0.005)
    assert figures["cmc"]["market1501"]["rank1"] == pytest.approx(expected.rank(1), abs=0.03)
    assert 0.05 < figures["mAP"] < 0.95
    assert figures["queries"] == len(dataset.query)
    assert figures["gallery"] == len(dataset.gallery)


def test_json_holds_every_documented_key(result: tuple[dict[str, Any], Path]) -> None:
    figures = result[0]
    assert list(figures) == [
        "model",
        "runtime",
        "precision",
        "dataset",
        "dim",
        "reranked",
        "mAP",
        "mINP",
        "cmc",
        "queries",
        "queries_counted",
        "queries_skipped",
        "gallery",
        "junk",
        "embed_seconds",
        "images_per_second",
        "evaluate_seconds",
        "picture",
    ]
    assert {name: list(curve) for name, curve in figures["cmc"].items()} == {
        name: ["rank1", "rank5", "rank10"] for name in ("market1501", "allshots", "cuhk03")
    }
    documented = (Path(__file__).parents[2] / "docs" / "commands" / "evaluate.md").read_text()
    assert [key for key in figures if f"`{key}`" not in documented] == []


def test_the_picture_is_written(result: tuple[dict[str, Any], Path]) -> None:
    figures, picture = result
    assert figures["picture"] == str(picture)
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[1] > 800


def test_the_table_prints_percent(tiny_model: TinyModel, synthetic_root: Path) -> None:
    known = (tiny_model.path, "--data-dir", synthetic_root, "--runtime", "onnxruntime")
    done = run(*known, "--rerank", "--cmc", "cuhk03")
    assert done.returncode == 0, done.stderr
    assert f": {tiny_model.path.name} on onnxruntime, re-ranked (%)" in done.stdout
    for text in ("mAP", "rank-1", "rank-10", "mINP", "cuhk03", "skipped", "images/s"):
        assert text in done.stdout
    assert "allshots" not in done.stdout


def test_mistakes_end_before_anything_is_embedded(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    known = (tiny_model.path, "--data-dir", synthetic_root)
    done = run(*known, "--cmc", "first")
    assert done.returncode == 2
    assert "'first' is not one of 'market1501', 'allshots', 'cuhk03'" in done.stderr
    done = run(*known, "--picture", tmp_path / "matches.jpg")
    assert done.returncode == 2
    assert "matches.jpg: a picture is written as PNG" in done.stderr
    done = run(tmp_path / "none.onnx", "--data-dir", synthetic_root)
    assert done.returncode == 2
    assert "none.onnx" in done.stderr
    assert not list(tmp_path.iterdir())
