"""Compares ``--detector`` with Ultralytics itself on what Ultralytics exports.

Networks are built of their configurations with drawn weights, so that nothing is downloaded; they
are exported to ONNX, and one frame is given to Ultralytics' predictor and to ours, from the same
file. Run it in an environment with ``ultralytics``, ``onnx`` and ``onnxruntime``::

    python benchmarks/detector_exports.py
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from ultralytics import RTDETR, YOLO

from sa_runtime.detectors.onnx import OnnxDetector

SIDE, COMPARED = 320, 20
EXPORTS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "YOLOv8, raw": (YOLO, "yolov8n.yaml", {}),
    "YOLO11, raw, dynamic": (YOLO, "yolo11n.yaml", {"dynamic": True}),
    "YOLO11, nms=True": (YOLO, "yolo11n.yaml", {"nms": True}),
    "YOLOv10, end2end=True": (YOLO, "yolov10n.yaml", {"end2end": True}),
    "YOLO26, end2end=True": (YOLO, "yolo26n.yaml", {"end2end": True}),
    "RT-DETR": (RTDETR, "rtdetr-l.yaml", {}),
}


def spread_scores(network: torch.nn.Module) -> None:
    """Draw weights of the head that tell boxes apart; fresh ones score all alike."""
    torch.manual_seed(0)
    for name, value in network.named_parameters():
        if value.dim() > 1 and ("cv3" in name or "score_head" in name):
            torch.nn.init.normal_(value, std=2 / value[0].numel() ** 0.5)
        elif "cv3" in name or "score_head" in name:
            torch.nn.init.constant_(value, -1.0 if value.dim() == 1 and len(value) == 80 else 0.1)


def compared(path: Path, kind: Any, confidence: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    frame = np.repeat(np.repeat(rng.integers(0, 255, (15, 32, 3), np.uint8), 16, 0), 16, 1)
    theirs = (
        kind(str(path), **({"task": "detect"} if kind is YOLO else {}))
        .predict(frame, conf=confidence, iou=0.7, imgsz=SIDE, verbose=False, device="cpu")[0]
        .boxes
    )
    classes = tuple(str(number) for number in range(80))
    found = OnnxDetector(path, min_confidence=confidence, classes=classes)(frame)
    count = min(COMPARED, len(theirs), len(found.xyxy))
    wanted = np.argsort(-theirs.conf.numpy(), kind="stable")[:count]
    got = np.argsort(-found.confidences, kind="stable")[:count]
    boxes, scores = theirs.xyxy.numpy()[wanted], theirs.conf.numpy()[wanted]
    return {
        "theirs": len(theirs),
        "ours": len(found.xyxy),
        "compared": count,
        "largest_difference_px": round(float(np.abs(boxes - found.xyxy[got]).max(initial=0)), 3),
        "largest_difference_of_scores": round(
            float(np.abs(scores - found.confidences[got]).max(initial=0)), 5
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, (kind, configuration, options) in EXPORTS.items():
            try:
                network = kind(configuration)
                spread_scores(network.model)
                path = Path(network.export(format="onnx", imgsz=SIDE, opset=17, **options))
                session = onnxruntime.InferenceSession(str(path))
                shapes = {one.name: one.shape for one in session.get_outputs()}
                print(json.dumps({name: {"outputs": shapes, **compared(path, kind, 0.3)}}))
                path.unlink()
            except Exception as error:  # one that cannot be exported leaves the others
                print(json.dumps({name: repr(error)[:300]}))


if __name__ == "__main__":
    main()
