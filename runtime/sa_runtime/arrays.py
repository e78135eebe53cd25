"""The arrays that pass between rooms, and colours, by name; NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
