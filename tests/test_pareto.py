"""Speed against accuracy by benchmarks/pareto.py, on drawn people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2

from tests.tiny_onnx import write_tiny_onnx

ROOT = Path(__file__).parents[1]
PEER = "twice, by a peer"


def test_models_and_peers_stand_in_one_table_and_chart(
    synthetic_root: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    write_tiny_onnx(model, height=32, width=16, dim=12, seed=0, max_batch=None)
    out, picture = tmp_path / "pareto.json", tmp_path / "pareto.png"
    command = (
        *(sys.executable, "-m", "benchmarks.pareto", f"once={model}"),
        *("--peer", f"{PEER}=sa_deploy_runtime:{model}", "--data", synthetic_root),
        *("--images", "8", "--rounds", "1", "--out", out, "--picture", picture),
    )
    ran = subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    lines = ran.stdout.decode()
    report = json.loads(out.read_text())
    contenders = {"once, embed", "once, plain ONNX Runtime", PEER}
    assert set(report["speed"]) == contenders
    assert all(row["people_per_s"] > 0 for row in report["speed"].values())
    assert report["images"] == 8
    assert 0 < report["accuracy"]["once"]["mAP"] <= 1
    assert all(f"{name} " in lines for name in contenders)
    assert f"{100 * report['accuracy']['once']['mAP']:5.2f}" in lines
    (of_peer,) = (line for line in lines.splitlines() if line.startswith(PEER))
    assert "mAP   nan" in of_peer, "no accuracy was given to what was not evaluated"
    assert cv2.imread(str(picture)) is not None
