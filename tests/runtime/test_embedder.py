from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime import crops
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def embedder(tiny_model: TinyModel) -> Embedder:
    return Embedder(tiny_model.path, "onnxruntime", batch_size=4)


def by_hand(tiny_model: TinyModel, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = tiny_model.embed(
        np.stack([crops.resize(image, 32, 16) for image in images])
    )
    return vectors


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_crops_of_any_size_become_their_vectors(
    embedder: Embedder, tiny_model: TinyModel, count: int
) -> None:
    images = [noise(20 + 7 * i, 10 + 5 * i, i) for i in range(count)]
    vectors = embedder.embed(images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, by_hand(tiny_model, images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_one_array_of_crops_is_a_sequence_of_crops(embedder: Embedder) -> None:
    stack = np.stack([noise(32, 16, i) for i in range(3)])
    np.testing.assert_array_equal(embedder.embed(stack), embedder.embed(list(stack)))


def test_nothing_gives_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 12)
    assert embedder.embed_boxes(noise(50, 40), []).shape == (0, 12)
    assert embedder.embed_paths([]).shape == (0, 12)


def test_the_contract_is_at_hand(embedder: Embedder, tiny_model: TinyModel) -> None:
    assert embedder.contract == tiny_model.contract
    assert (embedder.dim, embedder.space) == (12, "tiny-0")


def test_batches_stay_within_the_model(make_tiny_model: Callable[..., TinyModel]) -> None:
    model = make_tiny_model(max_batch=3)
    embedder = Embedder(model.path, "onnxruntime", batch_size=8)
    assert embedder.batch_size == 3
    images = [noise(30, 20, i) for i in range(7)]
    np.testing.assert_allclose(embedder.embed(images), by_hand(model, images), atol=1e-5)


@settings(max_examples=25)
@given(order=st.permutations(range(6)))
def test_a_vector_does_not_depend_on_its_batch_mates(
    order: list[int], tiny_model: TinyModel
) -> None:
    images = [noise(25, 15, i) for i in range(6)]
    embedder = Embedder(tiny_model.path, "onnxruntime", batch_size=4)
    straight = embedder.embed(images)
    shuffled = embedder.embed([images[i] for i in order])
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-6)


def test_boxes_are_their_crops_row_by_row(embedder: Embedder, tiny_model: TinyModel) -> None:
    frame = noise(100, 120)
    boxes = np.array([[5, 5, 45, 90], [-10, -10, 30, 60], [80, 20, 400, 300], [0, 0, 120, 100]])
    expected = [frame[5:90, 5:45], frame[:60, :30], frame[20:, 80:], frame]
    vectors = embedder.embed_boxes(frame, boxes.astype(np.float32))
    np.testing.assert_allclose(vectors, by_hand(tiny_model, expected), atol=1e-5)


def test_boxes_outside_the_frame(embedder: Embedder, tiny_model: TinyModel) -> None:
    frame = noise(100, 120)
    boxes = [[5, 5, 45, 90], [130, 20, 160, 60], [10, -50, 30, -5], [0, 0, 60, 50]]
    with pytest.raises(InputError, match=r"box 1 of 4 \(130, 20, 160, 60\) holds no pixel.*nan"):
        embedder.embed_boxes(frame, boxes)

    with_gaps = embedder.embed_boxes(frame, boxes, invalid="nan")
    assert np.isnan(with_gaps).all(axis=1).tolist() == [False, True, True, False]
    inside = by_hand(tiny_model, [frame[5:90, 5:45], frame[:50, :60]])
    np.testing.assert_allclose(with_gaps[[0, 3]], inside, atol=1e-5)

    nearest = embedder.embed_boxes(frame, boxes, invalid="nearest")
    strips = by_hand(tiny_model, [frame[20:60, 119:], frame[:1, 10:30]])
    np.testing.assert_allclose(nearest[[1, 2]], strips, atol=1e-5)
    np.testing.assert_allclose(nearest[[0, 3]], inside, atol=1e-5)


def test_boxes_that_are_not_numbers_are_named(embedder: Embedder) -> None:
    frame = noise(20, 20)
    boxes: list[list[float]] = [[0, 0, 9, 9], [0, np.nan, 5, 5]]
    with pytest.raises(InputError, match=r"box 1 \(0, nan, 5, 5\) is not finite"):
        embedder.embed_boxes(frame, boxes, invalid="nearest")
    assert np.isnan(embedder.embed_boxes(frame, boxes, invalid="nan")[1]).all()
    with pytest.raises(InputError, match=r"invalid='zero': expected one of raise, nan, nearest"):
        embedder.embed_boxes(frame, boxes, invalid="zero")  # type: ignore[arg-type]


def test_files_are_their_crops(embedder: Embedder, tmp_path: Path) -> None:
    images = [noise(40, 20, i) for i in range(5)]
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    np.testing.assert_array_equal(embedder.embed_paths(paths), embedder.embed(images))
    paths[3].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.png: not a whole image"):
        embedder.embed_paths(paths)


def test_other_inputs_are_refused_with_the_fix(embedder: Embedder) -> None:
    good = noise(20, 10)
    with pytest.raises(InputError, match=r"crop 1: float64 .*astype\(np\.uint8\)"):
        embedder.embed([good, good / 255])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"crop 0: uint8 \(20, 10, 4\).*COLOR_BGRA2BGR"):
        embedder.embed([np.zeros((20, 10, 4), np.uint8)])
    with pytest.raises(InputError, match=r"one image of shape \(20, 10, 3\).*pass \[image\]"):
        embedder.embed(good)
    with pytest.raises(InputError, match=r"frame: float32"):
        embedder.embed_boxes(good.astype(np.float32), [[0, 0, 5, 5]])
    with pytest.raises(InputError, match=r"batch_size=0: expected at least 1"):
        Embedder("absent.onnx", batch_size=0)


def test_the_runner_is_closed_at_the_end(tiny_model: TinyModel) -> None:
    runner = open_runner(tiny_model.path, "onnxruntime")
    with Embedder.from_runner(runner, batch_size=2) as embedder:
        assert embedder.embed([noise(9, 9)]).shape == (1, 12)
    with pytest.raises(RunnerError, match="the embedder is closed; open the model again"):
        embedder.embed([noise(9, 9)])
