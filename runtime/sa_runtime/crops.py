"""The only code that crops, resizes and colour-orders pixels.

Training, calibration, evaluation and production all come through here, so that a model
sees in production the pixels it was trained on. The filter (``bilinear-antialias`` in the
contract) is decided per axis: bilinear where the axis grows, a triangle over the source
pixels, as wide as the reduction, where it shrinks. It agrees with PIL's
``Image.resize(BILINEAR)`` to two grey levels; OpenCV's ``INTER_LINEAR`` alone skips source
pixels when it shrinks and is tens of grey levels off.

Images are (H, W, 3) uint8 BGR arrays; boxes are (N, 4) ``x0, y0, x1, y1`` in pixels, the right
and lower edges exclusive.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sa_runtime.arrays import Image, check_image
from sa_runtime.errors import InputError

_BLOCK = 8
"""Output rows filtered by one product: larger blocks multiply more zeros, smaller call more."""
_PRODUCT = 2**18
"""Multiplications in one product: OpenBLAS starts threads above, which wait for busy cores."""


class ClippedBoxes(NamedTuple):
    """Boxes in whole pixels inside a frame: ``boxes`` (N, 4) int64, ``valid`` (N,) bool."""

    boxes: NDArray[np.int64]
    valid: NDArray[np.bool_]


class _Bands(NamedTuple):
    """Triangle weights of one axis: block b of output reads ``taps`` rows from ``starts[b]``."""

    starts: tuple[int, ...]
    taps: int
    weights: NDArray[np.float32]  # (blocks, _BLOCK, taps)


def resize(image: Image, height: int, width: int, out: Image | None = None) -> Image:
    """Resize one image, each axis on its own: bilinear if it grows, antialiased if it shrinks.

    Args:
        image: (H, W, 3) uint8; may be a view into a frame.
        height: rows of the result.
        width: columns of the result.
        out: (height, width, 3) uint8, C-contiguous, written in place; a new array by default.

    Returns:
        ``out``: (height, width, 3) uint8.

    Raises:
        InputError: an image or ``out`` of another type or shape.

    >>> resize(np.full((4, 4, 3), 7, np.uint8), 2, 8)[0, 0].tolist()
    [7, 7, 7]
    """
    check_image(image)
    if height < 1 or width < 1:
        raise InputError(f"size {height}x{width}: expected at least 1x1")
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    elif out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise InputError(
            f"out: {out.dtype} {out.shape}, expected C-contiguous uint8 {(height, width, 3)}"
        )
    _resize_into(image, out)
    return out


def clip_boxes(boxes: ArrayLike, frame_height: int, frame_width: int) -> ClippedBoxes:
    """Boxes in whole pixels inside the frame.

    Each edge goes to the nearest pixel border (halves up), then into the frame.

    Args:
        boxes: (N, 4) ``x0, y0, x1, y1``, any number type.
        frame_height: rows of the frame.
        frame_width: columns of the frame.

    Returns:
        (N, 4) int64 boxes and an (N,) mask: false where nothing of the box is inside the frame,
        it covers less than half a pixel, its edges are swapped, or it is not finite.

    Raises:
        InputError: ``boxes`` is not (N, 4).

    >>> clip_boxes([[-3.2, 1.5, 4.4, 9], [50, 0, 60, 5]], 8, 10)
    ClippedBoxes(boxes=array([[ 0,  2,  4,  8],
           [10,  0, 10,  5]]), valid=array([ True, False]))
    """
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(
            f"boxes of shape {array.shape}, expected (N, 4) as x0, y0, x1, y1 in pixels"
        )
    finite = np.asarray(np.isfinite(array).all(axis=1), np.bool_)
    limits = np.array([frame_width, frame_height, frame_width, frame_height], np.float64)
    rounded = np.floor(np.where(finite[:, None], array, 0.0) + 0.5)
    clipped = np.clip(rounded, 0, limits).astype(np.int64)
    valid = finite & (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return ClippedBoxes(clipped, valid)


def reach_out(boxes: ArrayLike, frame_height: int, frame_width: int) -> NDArray[np.bool_]:
    """Which boxes reach out of the frame by half a pixel or more, so that clipping cuts them.

    Args:
        boxes: (N, 4) ``x0, y0, x1, y1``.
        frame_height: rows of the frame.
        frame_width: columns of the frame.

    Returns:
        (N,) bool.

    >>> reach_out([[-3.2, 1.5, 4.4, 9], [-0.4, 0, 10.4, 5]], 9, 10).tolist()
    [True, False]
    """
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.array([frame_width, frame_height], np.float64)
    outside = (array[:, :2] < -0.5) | (array[:, 2:] >= limits + 0.5)
    return np.asarray(outside.any(axis=1), np.bool_)


def crop_batch(
    frame: Image, boxes_xyxy: ArrayLike, height: int, width: int, out: Image | None = None
) -> Image:
    """Cut boxes from a frame and resize them into one batch.

    Args:
        frame: (H, W, 3) uint8 BGR.
        boxes_xyxy: (N, 4), rounded and clipped as :func:`clip_boxes` does.
        height: rows of a crop.
        width: columns of a crop.
        out: (N, height, width, 3) uint8, C-contiguous, written in place.

    Returns:
        (N, height, width, 3) uint8; row i is box i.

    Raises:
        InputError: a box that is empty inside the frame, named with its index; leave such boxes
            out with :func:`clip_boxes`. Or a frame, boxes or ``out`` of another type or shape.

    >>> crop_batch(np.zeros((9, 9, 3), np.uint8), [[0, 0, 4, 9], [2, 2, 99, 99]], 8, 4).shape
    (2, 8, 4, 3)
    """
    check_image(frame, "frame")
    clipped, valid = clip_boxes(boxes_xyxy, *frame.shape[:2])
    if not valid.all():
        index = int(np.flatnonzero(~valid)[0])
        raise InputError(
            f"box {index} ({describe_box(boxes_xyxy, index)}) is empty inside the frame of "
            f"{frame.shape[1]}x{frame.shape[0]} pixels; leave it out with crops.clip_boxes"
        )
    shape = (len(clipped), height, width, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise InputError(f"out: {out.dtype} {out.shape}, expected C-contiguous uint8 {shape}")
    cut_into(frame, clipped, out)
    return out


def cut_into(frame: Image, boxes: NDArray[np.int64], out: Image) -> None:
    """:func:`crop_batch` without its checks, for callers that made them.

    Args:
        frame: (H, W, 3) uint8.
        boxes: (N, 4) valid boxes from :func:`clip_boxes`.
        out: (N, height, width, 3) uint8, C-contiguous; row i becomes box i.
    """
    for (x0, y0, x1, y1), row in zip(boxes.tolist(), out, strict=True):
        _resize_into(frame[y0:y1, x0:x1], row)


def describe_box(boxes: ArrayLike, index: int) -> str:
    """A box as text for messages.

    >>> describe_box([[0, 1.5, 2, 3]], 0)
    '0, 1.5, 2, 3'
    """
    return ", ".join(f"{value:g}" for value in np.asarray(boxes, np.float64)[index])


def _resize_into(image: Image, out: Image) -> None:
    """Shrinking axes first, each rounded to uint8 as PIL does; then one bilinear pass."""
    height, width = out.shape[:2]
    if height < image.shape[0]:
        image = _shrink_rows(image, height)
    if width < image.shape[1]:
        columns = _shrink_rows(np.asarray(cv2.transpose(image), np.uint8), width)
        image = np.asarray(cv2.transpose(columns), np.uint8)
    cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)


def _shrink_rows(image: Image, height: int) -> Image:
    """(H, W, 3) -> (height, W, 3) uint8, height < H, by products with narrow bands of weights."""
    bands = _bands(image.shape[0], height)
    source = image.astype(np.float32).reshape(image.shape[0], -1)
    result = np.empty((height, source.shape[1]), np.float32)
    step = max(_PRODUCT // (_BLOCK * bands.taps), 1)
    for column in range(0, source.shape[1], step):
        taken, written = source[:, column : column + step], result[:, column : column + step]
        for index, (start, weights) in enumerate(zip(bands.starts, bands.weights, strict=True)):
            block = written[index * _BLOCK : (index + 1) * _BLOCK]
            np.matmul(weights[: len(block)], taken[start : start + bands.taps], out=block)
    return np.asarray(cv2.convertScaleAbs(result), np.uint8).reshape(height, *image.shape[1:])


@lru_cache(maxsize=512)
def _bands(size_in: int, size_out: int) -> _Bands:
    """Weights of PIL's BILINEAR when shrinking: a triangle of half-width ``size_in / size_out``."""
    scale = size_in / size_out
    blocks = -(-size_out // _BLOCK)
    centres = ((np.arange(blocks * _BLOCK) + 0.5) * scale).reshape(blocks, _BLOCK)
    first = np.maximum(np.floor(centres[:, 0] - scale + 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(centres[:, -1] + scale + 0.5), size_in).astype(np.int64)
    taps = int((last - first).max())
    first = np.minimum(first, size_in - taps)
    pixels = first[:, None, None] + np.arange(taps) + 0.5
    weights = np.maximum(1 - np.abs(pixels - centres[:, :, None]) / scale, 0)
    # Rows that only fill up the last block have no weights; they are never read.
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), np.finfo(np.float64).tiny)
    return _Bands(tuple(first.tolist()), taps, weights.astype(np.float32))
