"""Trackers themselves with the embedder in them, where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sa_runtime.adapters import adapter
from sa_runtime.embedder import Embedder

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def test_ultralytics_bot_sort_follows_with_the_embedder(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    pytest.importorskip("lap", reason="lap is not installed: pip install lap ultralytics")
    pytest.importorskip("ultralytics", reason="ultralytics is not installed")
    from ultralytics.engine.results import Boxes
    from ultralytics.trackers.bot_sort import BOTSORT
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    settings = YAML.load(check_yaml("botsort.yaml")) | {"device": "cpu", "gmc_method": "none"}
    tracker = BOTSORT(IterableSimpleNamespace(**settings))
    asked = []
    with Embedder(tiny_model.path, "onnxruntime") as embedder:
        encoder = adapter("ultralytics", embedder, invalid="nearest")

        def counted(image: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
            asked.append(len(boxes))
            found: list[np.ndarray] = encoder(image, boxes)
            return found

        tracker.encoder = counted
        tracker.args.with_reid, tracker.args.model = True, "sa-deploy"
        for step in range(8):
            frame = np.full((120, 160, 3), 30, np.uint8)
            rows = []
            for left, colour in ((10 + 3 * step, (0, 0, 220)), (100 - 3 * step, (220, 0, 0))):
                frame[20:100, left : left + 40] = colour
                rows.append([left, 20, left + 40, 100, 0.9, 0])
            found = tracker.update(Boxes(np.array(rows, np.float32), frame.shape[:2]), frame)
    assert sum(asked) == 16
    assert sorted(found[:, 4].tolist()) == [1, 2]
    means = [track.smooth_feat for track in tracker.tracked_stracks]
    assert all(np.linalg.norm(mean) == pytest.approx(1, abs=1e-5) for mean in means)
