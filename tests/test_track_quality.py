"""The benchmark of boxes' quality on a sequence of MOTChallenge, as a user has them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

from benchmarks import track_quality
from benchmarks.mot_sequences import frames_of, truth_of
from tests.clip import FRAMES, TRACKS, Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
LAYOUTS = {"MOT15-1": "{frame},{id},{box},1,-1,-1,-1\n", "MOT17-1": "{frame},{id},{box},1,1,1.0\n"}
"""Lines of a ground truth of 2015, and of one whose eighth field is the class."""


@pytest.fixture
def train(clip: Clip, tmp_path: Path) -> Path:
    """Two sequences; the second has a car, and a person that does not count."""
    boxes = [line.split(",") for line in clip.detections.read_text().splitlines()]
    for name, layout in LAYOUTS.items():
        home = tmp_path / "train" / name
        (home / "img1").mkdir(parents=True)
        (home / "gt").mkdir()
        lines = [layout.format(frame=b[0], id=b[1], box=",".join(b[2:6])) for b in boxes]
        if name == "MOT17-1":
            lines += [f"{n},77,5,5,40,80,1,3,1.0\n{n},78,5,5,40,80,0,1,1.0\n" for n in range(1, 41)]
        (home / "gt" / "gt.txt").write_text("".join(lines))
        capture = cv2.VideoCapture(str(clip.video))
        for number in range(1, FRAMES + 1):
            cv2.imwrite(str(home / "img1" / f"{number:06}.jpg"), capture.read()[1])
    return tmp_path / "train"


def test_only_people_that_count_are_taken(train: Path, clip: Clip) -> None:
    for name in LAYOUTS:
        assert len(truth_of(train / name)) == clip.boxes
        assert [number for number, _ in frames_of(train / name)] == list(range(1, FRAMES + 1))


@pytest.mark.slow
def test_thirds_of_tracks_are_sought_among_each_other(
    train: Path, clip: Clip, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.json"
    words = ["", str(tiny_model.path), "--mot", str(train), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    track_quality.main()
    found = json.loads(out.read_text())
    assert found["sequences"] == list(LAYOUTS)
    assert found["tracks"] == 2 * 2 * TRACKS
    ids = Counter(line.split(",")[1] for line in clip.detections.read_text().splitlines())
    assert found["crops"] == 2 * sum(2 * (count // 3) for count in ids.values())
    low, high = found["between"]["embed --tracks"]
    assert 0 < low < found["figures"]["embed --tracks"] < high <= 100
    assert found["above embed --tracks, between"]["embed --tracks"] == [0, 0]
