"""The main job, end to end, in a fifth of the README's world.

With all of it `make demo` finds 92.7 % of the people at rank 1; here, where training sees 20 people
instead of 100, 72 %.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clip import Clip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sa_deploy", "demo", "--identities", "40", "--json"]
    result = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return out, json.loads(result.stdout)


@pytest.mark.slow
def test_a_trained_network_finds_people_it_never_saw(demo: tuple[Path, dict[str, Any]]) -> None:
    network, artefact = demo[1]["evaluations"].values()
    assert network["cmc"]["market1501"]["rank1"] >= 0.6
    assert artefact["mAP"] == pytest.approx(network["mAP"], abs=0.001)


@pytest.mark.slow
def test_an_untrained_network_does_not(demo: tuple[Path, dict[str, Any]]) -> None:
    import torch

    from sa_export.parity import crop_embedder
    from sa_runtime.crops import resize
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.decoding import read_image
    from sa_runtime.retrieval.evaluation import evaluate_embedder
    from sa_training.network import SANetwork
    from sa_training.recipes import tiny

    torch.manual_seed(0)
    embed = crop_embedder(SANetwork(tiny().network), "parts")
    report = evaluate_embedder(
        lambda paths: embed(np.stack([resize(read_image(path), 128, 64) for path in paths])),
        load_dataset("synthetic", demo[0] / "world"),
    )
    assert report.result.rank(1) < 0.30


@pytest.mark.slow
def test_the_demo_leaves_what_it_says(demo: tuple[Path, dict[str, Any]]) -> None:
    from sa_runtime.outputs.read import read_embeddings

    out, report = demo
    assert all(Path(path).exists() for path in report["files"].values())
    stored = read_embeddings(out / "people.parquet")
    boxes = (out / "world" / "videos" / "c1.gt.txt").read_text().splitlines()
    assert len(stored.vectors) == len(boxes) == report["video"]["rows"]
    np.testing.assert_allclose(np.linalg.norm(stored.vectors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_another_video_is_embedded_whole(
    demo: tuple[Path, dict[str, Any]], clip: Clip, tmp_path: Path
) -> None:
    from sa_runtime.outputs.read import read_embeddings

    out = tmp_path / "o.parquet"
    model = demo[1]["files"]["model"]
    command = ["embed", model, clip.video, "--detections", clip.detections, "--out", out]
    subprocess.run(
        [sys.executable, "-m", "sa_deploy", *map(str, command)], check=True, capture_output=True
    )
    vectors = read_embeddings(out).vectors
    assert vectors.shape[0] == clip.boxes
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
