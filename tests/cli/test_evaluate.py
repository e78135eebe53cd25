"""``sa-deploy evaluate`` on the synthetic data set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from sa_runtime import crops
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.decoding import read_image
from sa_runtime.retrieval.evaluation import labels_of
from sa_runtime.retrieval.history import read_history
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
        *("--all-cmc", "--picture", picture, "--threads", 1, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_figures_are_those_of_the_models_own_arithmetic(
    result: tuple[dict[str, Any], Path], tiny_model: TinyModel, synthetic_root: Path
) -> None:
    dataset = load_dataset("synthetic", synthetic_root)
    sides: list[Any] = []
    for samples in (dataset.query, dataset.gallery):
        images = [crops.resize(read_image(sample.path), 32, 16) for sample in samples]
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
        "expanded",
        "mAP",
        "mINP",
        "cmc",
        "intervals",
        "queries",
        "queries_counted",
        "queries_skipped",
        "gallery",
        "junk",
        "embed_seconds",
        "images_per_second",
        "evaluate_seconds",
        "picture",
        "per_query",
        "report",
        "history",
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


def test_two_models_are_compared_and_gated(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    from tests.tiny_onnx import write_tiny_onnx  # a plugin, which pytest is to import first

    other = write_tiny_onnx(
        tmp_path / "other.onnx", height=32, width=16, dim=4, seed=7, max_batch=None
    )
    known = ("-d", "synthetic", "--data-dir", synthetic_root, "--runtime", "onnxruntime")
    per_query = tmp_path / "queries.parquet"
    done = run(tiny_model.path, other.path, *known, "--json", "--per-query", per_query)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    first, second = printed["evaluations"]
    (comparison,) = printed["comparisons"]
    assert (first["model"], second["model"]) == (str(tiny_model.path), str(other.path))
    assert (comparison["base"], comparison["model"]) == (first["model"], second["model"])
    found = comparison["differences"]["mAP"]
    assert found["value"] == pytest.approx(second["mAP"] - first["mAP"])
    assert found["verdict"] == ("real" if found["low"] > 0 or found["high"] < 0 else "noise")
    table = pq.read_table(per_query)
    assert table.num_rows == first["queries"] + second["queries"]
    precision = table["average_precision"].to_numpy()
    assert np.nanmean(precision[: first["queries"]]) == pytest.approx(first["mAP"])
    assert Path(table["query"][0].as_py()).is_file()

    done = run(tiny_model.path, other.path, *known, "--gate", "mAP>=0.1", "--gate", "rank1>=99.9")
    assert done.returncode == 3
    assert f"{tiny_model.path} on synthetic: rank1" in done.stderr
    assert f"{other.path} on synthetic: rank1" in done.stderr
    assert "mAP>=0.1" not in done.stderr
    for text in ("verdict", f"{other.path.name} less {tiny_model.path.name}", "found better"):
        assert text in done.stdout


def test_several_data_sets_give_a_row_each(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(synthetic_root)
    done = run(
        *(tiny_model.path, "-d", "synthetic", "-d", "market", "--runtime", "onnxruntime"),
        *("--data-dir", synthetic_root, "--data-dir", copy, "--expand", "--json"),
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [one["dataset"] for one in printed["evaluations"]] == ["synthetic", "market"]
    assert printed["comparisons"] == []
    assert {one["expanded"] for one in printed["evaluations"]} == {True}
    plain = run(
        *(tiny_model.path, "-d", "synthetic", "--data-dir", synthetic_root),
        *("--runtime", "onnxruntime", "--json"),
    )
    assert json.loads(plain.stdout)["mAP"] != printed["evaluations"][0]["mAP"]


def test_a_report_and_a_breakdown(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    known = (tiny_model.path, "-d", "synthetic", "--data-dir", synthetic_root)
    done = run(*known, "--runtime", "onnxruntime", "--report", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["report"] == str(tmp_path / "out")
    assert set(figures["breakdown"]) == {"camera_pairs", "heights", "times", "open_set"}
    assert sum(pair["queries"] for pair in figures["breakdown"]["camera_pairs"]) > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(?:src|href)=.?https?:", page)
    done = run(*known, "--runtime", "onnxruntime", "--breakdown")
    assert done.returncode == 0, done.stderr
    for text in ("by pair of cameras, the worst first", "TPR", "0.1 %"):
        assert text in done.stdout


def test_evaluations_add_up_in_a_history(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    known = (tiny_model.path, "-d", "synthetic", "--data-dir", synthetic_root)
    more = ("--runtime", "onnxruntime", "--history", path)
    assert run(*known, *more).returncode == 0
    assert run(*known, *more, "--expand").returncode == 0
    done = run(*known, *more)
    assert done.returncode == 0, done.stderr
    entries = read_history(path)
    assert [entry.expanded for entry in entries] == [False, True, False]
    assert entries[0].mAP == entries[2].mAP
    table = done.stdout.partition("over time")[2]
    assert table.count(tiny_model.path.name) == 2
    before = path.read_bytes()
    path.write_bytes(before + b"{}")
    done = run(*known, *more)
    assert done.returncode == 2
    assert "history.jsonl: line 4 is no evaluation ('time')" in done.stderr
    assert path.read_bytes() == before + b"{}"
    done = run(*known, "--history", tmp_path / "a.csv")
    assert "expected NAME.jsonl" in done.stderr


def test_more_mistakes_end_before_anything_is_embedded(
    tiny_model: TinyModel, synthetic_root: Path, tmp_path: Path
) -> None:
    known = ("-d", "synthetic", "--data-dir", synthetic_root)
    done = run(tiny_model.path, *known, "--gate", "mAP=70")
    assert done.returncode == 2
    assert "--gate mAP=70: expected a figure and a limit in percent" in done.stderr
    done = run(tiny_model.path, tiny_model.path, *known)
    assert done.returncode == 2
    assert "given twice" in done.stderr
    done = run(tiny_model.path, "b.onnx", *known, "--picture", tmp_path / "a.png")
    assert done.returncode == 2
    assert "--picture shows one model on one data set" in done.stderr
    done = run(tiny_model.path, *known, "--per-query", tmp_path / "a.csv")
    assert done.returncode == 2
    assert "is written as Parquet; expected NAME.parquet" in done.stderr
    done = run(tiny_model.path, *known, "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "2 folders for 1 data sets" in done.stderr
