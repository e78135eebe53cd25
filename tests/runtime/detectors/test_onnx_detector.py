"""The same people in the output of every exporter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from sa_runtime.detectors.base import found_of
from sa_runtime.detectors.onnx import OnnxDetector
from sa_runtime.errors import DetectionError, InputError, MissingFileError
from tests.tiny_detectors import SIDE, end_to_end, write_detector

FRAME = np.zeros((128, 256, 3), np.uint8)
"""Four times as wide as the input: scaled by a quarter, 16 rows of grey above and below."""
IN_INPUT = [[8, 16, 24, 40], [32, 20, 48, 44]]
IN_FRAME = [[32, 0, 96, 96], [128, 16, 192, 112]]
SCORES = [0.9, 0.5]


def centred(xyxy: list[list[int]]) -> np.ndarray:
    x0, y0, x1, y1 = np.array(xyxy, np.float32).T
    return np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)


def ultralytics_end_to_end(path: Path) -> Path:
    rows = np.zeros((1, 300, 6), np.float32)
    for index, (box, score) in enumerate(zip(IN_INPUT, SCORES, strict=True)):
        rows[0, index] = [*box, score, 0]
    return write_detector(path, {"output0": rows})


def ultralytics_rtdetr(path: Path) -> Path:
    """Centres and sizes in parts of the frame, which was stretched; queries that found nobody."""
    rows = np.full((1, 300, 6), 0.01, np.float32)
    rows[..., 5] = 0
    for index, (box, score) in enumerate(zip(centred(IN_FRAME), SCORES, strict=True)):
        rows[0, index] = [*(box / [256, 128, 256, 128]), score, 0]
    return write_detector(path, {"output0": rows})


def ultralytics_rtdetr_of_before(path: Path) -> Path:
    """A score for each of two classes in place of the best and its class."""
    rows = np.full((1, 300, 6), 0.01, np.float32)
    for index, (box, score) in enumerate(zip(centred(IN_FRAME), SCORES, strict=True)):
        rows[0, index] = [*(box / [256, 128, 256, 128]), score, 0.02]
    return write_detector(path, {"output0": rows})


def ultralytics_rtdetr_of_one_class(path: Path) -> Path:
    """Of older versions too: four parts of the frame and one score."""
    rows = np.full((1, 300, 5), 0.01, np.float32)
    for index, (box, score) in enumerate(zip(centred(IN_FRAME), SCORES, strict=True)):
        rows[0, index] = [*(box / [256, 128, 256, 128]), score]
    return write_detector(path, {"output0": rows})


def ultralytics_raw(path: Path) -> Path:
    rows = np.zeros((1, 4 + 3, 84), np.float32)
    for index, (box, score) in enumerate(zip(centred(IN_INPUT), SCORES, strict=True)):
        for copy in range(2):  # twice; the second is suppressed
            rows[0, :4, 2 * index + copy] = box + copy
            rows[0, 4, 2 * index + copy] = score - 0.1 * copy
    return write_detector(path, {"output0": rows})


def ultralytics_dynamic(path: Path) -> Path:
    """The same, with every side of the output left open."""
    model = onnx.load(str(ultralytics_raw(path)))
    for number, side in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        side.dim_param = f"side_{number}"
    onnx.save(model, str(path))
    return path


def yolov5(path: Path) -> Path:
    rows = np.zeros((1, 252, 5 + 3), np.float32)
    for index, (box, score) in enumerate(zip(centred(IN_INPUT), SCORES, strict=True)):
        rows[0, index] = [*box, score, 1, 0, 0]
    return write_detector(path, {"output": rows})


def yolox(path: Path) -> Path:
    """Boxes relative to the first cells of the finest grid; the frame lies in the corner."""
    rows = np.zeros((1, 64 + 16 + 4, 5 + 3), np.float32)
    for index, (box, score) in enumerate(zip(IN_FRAME, SCORES, strict=True)):
        x, y, w, h = centred([[one // 4 for one in box]])[0]
        rows[0, index] = [x / 8 - index, y / 8, np.log(w / 8), np.log(h / 8), score, 1, 0, 0]
    return write_detector(path, {"output": rows})


def detr(path: Path) -> Path:
    logits = np.full((1, 300, 3), -9, np.float32)
    boxes = np.zeros((1, 300, 4), np.float32)
    for index, (box, score) in enumerate(zip(centred(IN_FRAME), SCORES, strict=True)):
        boxes[0, index] = box / [256, 128, 256, 128]
        logits[0, index, 0] = np.log(score / (1 - score))
    return write_detector(path, {"logits": logits, "pred_boxes": boxes})


def rt_detr(path: Path) -> Path:
    labels = np.zeros((1, 300), np.int64)
    boxes, scores = np.zeros((1, 300, 4), np.float32), np.zeros((1, 300), np.float32)
    boxes[0, :2], scores[0, :2] = IN_FRAME, SCORES
    return write_detector(path, {"labels": labels, "boxes": boxes, "scores": scores}, sized=True)


@pytest.mark.parametrize(
    "write",
    [
        ultralytics_end_to_end,
        ultralytics_rtdetr,
        ultralytics_rtdetr_of_before,
        ultralytics_rtdetr_of_one_class,
        ultralytics_raw,
        ultralytics_dynamic,
        yolov5,
        yolox,
        detr,
        rt_detr,
    ],
)
def test_every_exporters_people_are_found(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    with OnnxDetector(write(tmp_path / "d.onnx")) as detector:
        found = detector(FRAME)
    order = np.argsort(-found.confidences)
    np.testing.assert_allclose(found.xyxy[order], IN_FRAME, atol=0.01)
    np.testing.assert_allclose(found.confidences[order], SCORES, atol=1e-5)
    assert found.track_ids.tolist() == [-1, -1]


NOTED = {
    "[160, 160]": (0.625, 8),
    "160": (0.625, 8),
    "[96, 256]": (0.75, 0),
    "[160]": (2.5, 160),
    "no size": (2.5, 160),
}
"""Size that a file notes -> scale of the frame, and rows of grey above it: up to a multiple of the
stride; in a square of 640 where the size is not known."""


@pytest.mark.parametrize("noted", NOTED)
def test_an_open_size_is_the_one_that_the_file_notes(tmp_path: Path, noted: str) -> None:
    scale, above = NOTED[noted]
    rows = np.zeros((1, 300, 6), np.float32)
    for index, (box, score) in enumerate(zip(IN_FRAME, SCORES, strict=True)):
        rows[0, index] = [*(np.array(box) * scale + [0, above, 0, above]), score, 0]
    path = write_detector(
        tmp_path / "d.onnx",
        {"output0": rows},
        noted={"imgsz": noted, "stride": "32"},
        sides=("height", "width"),
    )
    with OnnxDetector(path) as detector:
        np.testing.assert_allclose(detector(FRAME).xyxy, IN_FRAME, atol=0.01)


def test_classes_and_confidence_choose(tmp_path: Path) -> None:
    path = end_to_end(tmp_path / "d.onnx")
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert OnnxDetector(path)(square).confidences.tolist() == pytest.approx([0.9, 0.5])
    assert len(OnnxDetector(path, min_confidence=0.6)(square).xyxy) == 1
    for name in ("car", "CAR", "2"):
        found = OnnxDetector(path, classes=(name,))(square)
        assert found.xyxy.tolist() == [[0, 0, 9, 9]]
    assert len(OnnxDetector(path, classes=("person", "car"))(square).xyxy) == 3


def test_what_is_no_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no\.onnx: no such file; expected a detector"):
        OnnxDetector(tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match=r"text\.onnx: not an ONNX file that ONNX Runtime opens"):
        OnnxDetector(tmp_path / "text.onnx")
    other = write_detector(tmp_path / "o.onnx", {"embeddings": np.zeros((1, 8), np.float32)})
    with pytest.raises(InputError, match=r"outputs embeddings of shapes .* of no known detector"):
        OnnxDetector(other)
    pixels = write_detector(tmp_path / "p.onnx", {"output0": np.full((1, 300, 5), 9, np.float32)})
    with pytest.raises(
        InputError, match=r"shape \[1, 300, 5\], four numbers of a box .* in pixels"
    ):
        OnnxDetector(pixels)
    with pytest.raises(InputError, match="max_overlap=0: expected more than 0"):
        OnnxDetector(other, max_overlap=0)


def test_what_a_callable_may_return() -> None:
    assert found_of([]).xyxy.shape == (0, 4)
    assert found_of(np.zeros((2, 4))).confidences.tolist() == [1, 1]
    rows = found_of([[1, 2, 3, 4, 0.5, 2]])
    assert (rows.confidences.tolist(), rows.classes) == ([0.5], ("2",))
    like = SimpleNamespace(
        xyxy=np.ones((1, 4)), confidence=None, tracker_id=np.array([7]), class_id=np.array([0])
    )
    found = found_of(like)
    assert (found.track_ids.tolist(), found.confidences.tolist()) == ([7], [1])
    assert found.classes == ("0",)
    with pytest.raises(DetectionError, match="the detector returned an array of shape"):
        found_of(np.zeros((2, 3)))
    with pytest.raises(DetectionError, match=r"the detector returned an array of shape \(\); exp"):
        found_of(None)
    with pytest.raises(DetectionError, match="the detector returned a str; expected rows x0, y0"):
        found_of("people")
