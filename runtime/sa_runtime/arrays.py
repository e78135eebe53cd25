"""The arrays that pass between rooms, and colours, by name; what an image must be. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, channels in OpenCV's order BGR, rows from the top."""
Images = NDArray[np.uint8]
"""(N, H, W, 3) uint8 BGR, H x W of the contract, as :mod:`sa_runtime.crops` makes them."""
Boxes = NDArray[np.floating]
"""(N, 4) ``x0, y0, x1, y1`` in pixels of their picture; x1 and y1 lie just outside."""
Embeddings = NDArray[np.float32]
"""(N, D) float32, rows of unit length."""
Bgr = tuple[int, int, int]
"""A colour in OpenCV's order, each from 0 to 255."""


def check_image(image: Any, name: str = "image") -> Image:
    """Return ``image`` if it is (H, W, 3) uint8 with at least one pixel.

    Args:
        image: what a caller gave.
        name: what to call it in the message.

    Raises:
        InputError: another type, shape or number of channels; the message says how to convert.

    >>> check_image(np.zeros((4, 2, 3), np.float32), "crop 5")
    Traceback (most recent call last):
        ...
    sa_runtime.errors.InputError: crop 5: float32 (4, 2, 3), expected (H, W, 3) uint8 BGR; \
scale it to 0..255 and convert with .astype(np.uint8)
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"{name}: {type(image).__name__}, expected a NumPy array (H, W, 3) uint8 BGR"
        )
    came = f"{name}: {image.dtype} {image.shape}, expected (H, W, 3) uint8 BGR"
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise InputError(f"{came}; convert it with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    if image.ndim == 3 and image.shape[2] == 4:
        raise InputError(f"{came}; convert it with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = "; reorder it with image.transpose(1, 2, 0)" if image.shape[:1] == (3,) else ""
        raise InputError(f"{came}{hint}")
    if image.dtype != np.uint8:
        raise InputError(f"{came}; scale it to 0..255 and convert with .astype(np.uint8)")
    if image.size == 0:
        raise InputError(f"{came} with at least one pixel; leave empty crops out")
    return image
