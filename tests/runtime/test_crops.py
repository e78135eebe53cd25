from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PilImage

from sa_runtime import crops
from sa_runtime.errors import InputError

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def natural(height: int, width: int, seed: int = 0) -> Pixels:
    """Random smooth colours with a few hard edges and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (max(height // 16, 2), max(width // 16, 2), 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.asarray(smooth, np.float32)
    image[:, width // 3 : width // 2] *= 0.4
    image += rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def pil_bilinear(image: Pixels, height: int, width: int) -> Pixels:
    resized = PilImage.fromarray(image).resize((width, height), PilImage.Resampling.BILINEAR)
    return np.asarray(resized)


def difference(a: Pixels, b: Pixels) -> NDArray[np.int64]:
    gap: NDArray[np.int64] = np.abs(a.astype(np.int64) - b)
    return gap


SIZES = [
    pytest.param((128, 64), (384, 128), id="both-grow"),
    pytest.param((300, 120), (384, 128), id="detection-grows"),
    pytest.param((800, 400), (256, 128), id="both-shrink"),
    pytest.param((400, 129), (384, 128), id="both-shrink-slightly"),
    pytest.param((90, 300), (384, 128), id="mixed-wide"),
    pytest.param((900, 60), (256, 128), id="mixed-tall"),
    pytest.param((500, 128), (384, 128), id="rows-only"),
    pytest.param((384, 333), (384, 128), id="columns-only"),
    pytest.param((1000, 700), (7, 3), id="far-down"),
    pytest.param((1, 1), (16, 8), id="one-pixel-up"),
    pytest.param((31, 17), (1, 1), id="one-pixel-down"),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("kind", [noise, natural])
def test_resize_agrees_with_pil(
    kind: Callable[..., Pixels], source: tuple[int, int], target: tuple[int, int]
) -> None:
    image = kind(*source)
    gap = difference(crops.resize(image, *target), pil_bilinear(image, *target))
    assert gap.max() <= 2
    assert gap.mean() <= 0.5


def test_plain_opencv_would_not_agree() -> None:
    image = noise(800, 400)
    plain = np.asarray(cv2.resize(image, (128, 256)), np.uint8)
    assert difference(plain, pil_bilinear(image, 256, 128)).max() > 30


@settings(max_examples=60)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**16),
)
def test_resize_agrees_with_pil_at_any_size(
    source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    image = noise(source[0], source[1], seed)
    assert difference(crops.resize(image, *target), pil_bilinear(image, *target)).max() <= 2


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    level=st.integers(0, 255),
)
def test_a_flat_image_stays_flat(
    size: tuple[int, int], target: tuple[int, int], level: int
) -> None:
    image = np.full((*size, 3), level, np.uint8)
    assert (crops.resize(image, *target) == level).all()


@settings(max_examples=40)
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 99))
def test_the_whole_frame_at_its_size_is_the_frame(size: tuple[int, int], seed: int) -> None:
    frame = noise(size[0], size[1], seed)
    whole = [[0, 0, size[1], size[0]]]
    np.testing.assert_array_equal(crops.crop_batch(frame, whole, size[0], size[1])[0], frame)


def test_halving_by_hand() -> None:
    # A triangle of half-width 2: (1 3 3 1)/8, and (3 3 1)/7 or (1 3 3)/7 at the borders.
    column = np.array([0, 70, 140, 210], np.uint8)
    image = np.repeat(column, 3).reshape(4, 1, 3)
    expected = [(3 * 0 + 3 * 70 + 140) / 7, (70 + 3 * 140 + 3 * 210) / 7]
    assert crops.resize(image, 2, 1)[:, 0, 0].tolist() == [round(value) for value in expected]


@settings(max_examples=40)
@given(
    boxes=st.lists(
        st.tuples(
            st.floats(-20, 69), st.floats(-20, 59), st.floats(1, 80), st.floats(1, 80)
        ).filter(lambda box: box[0] + box[2] >= 1 and box[1] + box[3] >= 1),
        min_size=1,
        max_size=6,
    )
)
def test_a_crop_does_not_depend_on_its_batch_mates(boxes: list[tuple[float, ...]]) -> None:
    frame = noise(60, 70)
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
    valid = crops.clip_boxes(xyxy, 60, 70).valid
    xyxy = xyxy[valid]
    batch = crops.crop_batch(frame, xyxy, 32, 16)
    for box, crop in zip(xyxy, batch, strict=True):
        np.testing.assert_array_equal(crops.crop_batch(frame, box[None], 32, 16)[0], crop)


def test_a_crop_is_the_resized_slice() -> None:
    frame = natural(120, 160)
    crop = crops.crop_batch(frame, [[10.4, 20.5, 50.6, 100.49]], 64, 32)[0]
    np.testing.assert_array_equal(crop, crops.resize(frame[21:100, 10:51].copy(), 64, 32))


@settings(max_examples=200)
@given(
    boxes=st.lists(
        st.tuples(*[st.floats(-1e12, 1e12) | st.floats(-30, 130) | st.just(float("nan"))] * 4),
        max_size=5,
    ),
    height=st.integers(1, 100),
    width=st.integers(1, 100),
)
def test_clipped_boxes_lie_inside_and_are_what_they_say(
    boxes: list[tuple[float, ...]], height: int, width: int
) -> None:
    clipped, valid = crops.clip_boxes(boxes, height, width)
    assert clipped.shape == (len(boxes), 4)
    assert valid.shape == (len(boxes),)
    for original, (x0, y0, x1, y1), ok in zip(boxes, clipped.tolist(), valid, strict=True):
        assert 0 <= x0 <= width
        assert 0 <= x1 <= width
        assert 0 <= y0 <= height
        assert 0 <= y1 <= height
        assert ok == (np.isfinite(original).all() and x1 > x0 and y1 > y0)
        if ok and all(value == int(value) for value in original):
            ox0, oy0, ox1, oy1 = original
            assert (x0, y0) == (max(ox0, 0), max(oy0, 0))
            assert (x1, y1) == (min(ox1, width), min(oy1, height))


def test_out_rows_are_written_in_place() -> None:
    frame = noise(50, 40)
    out = np.zeros((3, 16, 8, 3), np.uint8)
    boxes = [[0, 0, 9, 40], [5, 5, 40, 9], [0, 0, 40, 50]]
    assert crops.crop_batch(frame, boxes, 16, 8, out) is out
    np.testing.assert_array_equal(out, crops.crop_batch(frame, boxes, 16, 8))
    assert out.reshape(3, -1).any(axis=1).all()


@pytest.mark.parametrize("view", ["rgb", "transposed", "strided", "read-only"])
def test_views_of_any_strides_resize_like_their_copies(view: str) -> None:
    image = noise(60, 80)
    image = {
        "rgb": image[..., ::-1],
        "transposed": image.transpose(1, 0, 2),
        "strided": image[::2, ::-1],
        "read-only": image,
    }[view]
    image.flags.writeable = view != "read-only"
    for target in ((90, 90), (20, 10), (20, 100), (100, 20)):
        np.testing.assert_array_equal(
            crops.resize(image, *target), crops.resize(np.array(image, order="C"), *target)
        )


def test_no_boxes_give_an_empty_batch() -> None:
    assert crops.crop_batch(noise(9, 9), [], 8, 4).shape == (0, 8, 4, 3)
    assert crops.crop_batch(noise(9, 9), np.zeros((0, 4)), 8, 4).shape == (0, 8, 4, 3)


def test_an_empty_box_is_named() -> None:
    with pytest.raises(InputError, match=r"box 1 \(12, 2, 20, 8\) is empty inside .* 10x9 pixels"):
        crops.crop_batch(noise(9, 10), [[0, 0, 5, 5], [12, 2, 20, 8]], 8, 4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\).*\.astype\(np\.uint8\)"),
        (np.zeros((4, 4), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((3, 8, 5), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ([[1, 2, 3]], "list, expected a NumPy array"),
    ],
)
def test_other_images_are_refused_with_the_fix(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        crops.resize(image, 8, 4)


def test_sizes_boxes_and_outputs_are_checked() -> None:
    frame = noise(9, 9)
    with pytest.raises(InputError, match="size 0x4: expected at least 1x1"):
        crops.resize(frame, 0, 4)
    with pytest.raises(InputError, match=r"out: uint8 \(8, 5, 3\), expected .* \(8, 4, 3\)"):
        crops.resize(frame, 8, 4, np.zeros((8, 5, 3), np.uint8))
    with pytest.raises(InputError, match=r"out: uint8 \(8, 4, 3\), expected C-contiguous"):
        crops.resize(frame, 8, 4, np.zeros((8, 8, 3), np.uint8)[:, ::2])
    with pytest.raises(InputError, match=r"out: float32 \(1, 8, 4, 3\)"):
        crops.crop_batch(frame, [[0, 0, 9, 9]], 8, 4, np.zeros((1, 8, 4, 3), np.float32))
    with pytest.raises(InputError, match=r"boxes of shape \(1, 5\), expected \(N, 4\)"):
        crops.clip_boxes([[1, 2, 3, 4, 5]], 9, 9)
