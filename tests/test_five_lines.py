"""What a user writes first: each job of the library in about five lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

EMBED = """
from sa_deploy import embed, read_embeddings, top_k

embed("c1.mp4", "model.onnx", "people.parquet", detections="c1.gt.txt")
people = read_embeddings("people.parquet")
hits = top_k(people, people, k=3)
"""
EVALUATE = """
from sa_deploy import evaluate

report = evaluate("model.onnx", "synthetic", "world")
mAP, rank1 = report.mAP, report.rank(1)
"""
TRAIN_AND_EXPORT = """
from sa_deploy import export_model, train_model

checkpoint = train_model("synthetic", "world", out="run", recipe="tiny", max_steps=2)
artefact = export_model(checkpoint, "run", validation="world")
"""


@pytest.fixture
def folder(
    tiny_onnx_model: Path, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a model, a data set, and a video with its boxes."""
    names = {"model.onnx": tiny_onnx_model, "world": synthetic_root}
    names |= {name: synthetic_root / "videos" / name for name in ("c1.mp4", "c1.gt.txt")}
    for name, target in names.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(script: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(script, names)
    return names


def test_embed_a_video_and_search_in_it(folder: Path) -> None:
    found = run(EMBED)
    people, hits = found["people"], found["hits"]
    lines = (folder / "c1.gt.txt").read_text().splitlines()
    assert people.vectors.shape == (len(lines), people.contract.output.dim)
    assert hits.index[:, 0].tolist() == list(range(len(lines)))
    assert hits.distance[:, 0].max() < 1e-5


def test_evaluate_an_artefact(folder: Path) -> None:
    found = run(EVALUATE)
    assert 0 < found["mAP"] < 1
    assert 0 <= found["rank1"] < 1


@pytest.mark.usefixtures("exports_share")
def test_train_and_export(folder: Path) -> None:
    artefact = run(TRAIN_AND_EXPORT)["artefact"]
    assert artefact.path.resolve() == folder / "run" / "model.onnx"
    assert artefact.parity["parts"].map_drop < 0.5
