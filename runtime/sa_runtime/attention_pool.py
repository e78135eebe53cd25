"""AttentionPool, the one operator of the SA network: the NumPy reference.

Every other form of it (torch operator, ONNX function body, Triton kernel, TensorRT
plugin) is tested against this file. Shape suffixes: N images, C channels, H x W map,
P windows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import bad_value

Normalize = Literal["sum", "softmax", "none"]
NORMALIZATIONS: tuple[Normalize, ...] = ("sum", "softmax", "none")


class Windows(NamedTuple):
    """Horizontal windows over a map's rows: window p covers rows [p*step, p*step + size)."""

    step: int
    size: int


def windows(height: int, parts: int) -> Windows:
    """Part windows as the authors cut them: ``step = H // P``, ``size = H - step * (P - 1)``.

    Args:
        height: rows of the map.
        parts: number of windows, 1 for global pooling.

    Raises:
        InputError: more parts than rows, or fewer than one part.

    >>> windows(24, 6), windows(8, 6), windows(24, 1)
    (Windows(step=4, size=4), Windows(step=1, size=3), Windows(step=24, size=24))
    """
    if not 1 <= parts <= height:
        raise bad_value("parts", parts, f"expected 1 to {height}, the rows of the map")
    step = height // parts
    return Windows(step=step, size=height - step * (parts - 1))


def attention_map(
    x_NCHW: NDArray[np.floating], normalize: Normalize = "sum"
) -> NDArray[np.float32]:
    """The attention A, of mean 1 over each image's map.

    Args:
        x_NCHW: (N, C, H, W) feature map, any float type; sums are taken in float32 or wider.
        normalize: ``sum`` (the authors' code): ``A = HW * S / sum(S)`` with S the channel mean;
            ``softmax`` (the paper's text): ``A = HW * softmax(channel sum)``; ``none``: 1.

    Returns:
        (N, 1, H, W) float32. An all-zero map attends uniformly.

    Raises:
        InputError: an unknown normalisation.
    """
    x_NCHW = x_NCHW.astype(np.float32)
    n, _, h, w = x_NCHW.shape
    if normalize == "none":
        return np.ones((n, 1, h, w), np.float32)
    if normalize == "sum":
        weight_N1HW = x_NCHW.mean(axis=1, keepdims=True)
    elif normalize == "softmax":
        total_N1HW = x_NCHW.sum(axis=1, keepdims=True)
        weight_N1HW = np.exp(total_N1HW - total_N1HW.max(axis=(2, 3), keepdims=True))
    else:
        raise bad_value("normalize", normalize, f"expected one of {', '.join(NORMALIZATIONS)}")
    mean_N111 = weight_N1HW.mean(axis=(2, 3), keepdims=True)
    uniform = mean_N111 == 0
    attention: NDArray[np.float32] = np.where(
        uniform, np.float32(1), weight_N1HW / np.where(uniform, np.float32(1), mean_N111)
    )
    return attention


def attention_pool(
    x_NCHW: NDArray[np.floating], parts: int = 1, normalize: Normalize = "sum"
) -> NDArray[np.floating]:
    """Attention-weighted average pooling: ``Y[n,c,p]`` is the mean of ``X * A`` over window p.

    Args:
        x_NCHW: (N, C, H, W) feature map, any float type.
        parts: number of horizontal windows P.
        normalize: see :func:`attention_map`.

    Returns:
        (N, C, P) of the input's type.

    >>> x = np.ones((1, 2, 4, 3), np.float32)
    >>> attention_pool(x, parts=2).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    weighted_NCHW = x_NCHW.astype(np.float32) * attention_map(x_NCHW, normalize)
    step, size = windows(x_NCHW.shape[2], parts)
    pooled = [
        weighted_NCHW[:, :, p * step : p * step + size].mean(axis=(2, 3)) for p in range(parts)
    ]
    return np.stack(pooled, axis=2).astype(x_NCHW.dtype)
