"""AttentionPool as a torch operator, ``torch.ops.sa_deploy.attention_pool``.

The mathematics is that of :mod:`sa_runtime.attention_pool`. As an operator of its own the
exporter sees one node, ``torch.compile`` one call with a shape rule, and autograd a closed
form that keeps only the input. Shape suffixes: N images, C channels, H x W map, P windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, windows
from sa_runtime.errors import bad_value

Lowering = Callable[[Tensor, int, str], Tensor]
"""What stands for the operator: (x_NCHW, parts, normalize) -> (N, C, P)."""

_lowering: ContextVar[Lowering | None] = ContextVar("sa_deploy_lowering", default=None)


@contextmanager
def lowered_to(lowering: Lowering) -> Iterator[None]:
    """Within it :func:`attention_pool` calls ``lowering`` instead of the operator.

    Exporters trace the network this way: to a node of theirs, or with
    :func:`attention_pool_reference` to plain operations that load without this package.
    """
    token = _lowering.set(lowering)
    try:
        yield
    finally:
        _lowering.reset(token)


def attention_map(x_NCHW: Tensor, normalize: str = "sum") -> Tensor:
    """The attention A of mean 1, (N, 1, H, W) float32; an all-zero map attends uniformly.

    Raises:
        InputError: an unknown normalisation.
    """
    if normalize == "sum":
        weight_N1HW = x_NCHW.mean(dim=1, keepdim=True, dtype=torch.float32)
    elif normalize == "softmax":
        total_N1HW = x_NCHW.sum(dim=1, keepdim=True, dtype=torch.float32)
        weight_N1HW = torch.exp(total_N1HW - total_N1HW.amax(dim=(2, 3), keepdim=True))
    elif normalize == "none":
        return torch.ones_like(x_NCHW[:, :1], dtype=torch.float32)
    else:
        raise bad_value("normalize", normalize, f"expected one of {', '.join(NORMALIZATIONS)}")
    mean_N111 = weight_N1HW.mean(dim=(2, 3), keepdim=True)
    return torch.where(mean_N111 == 0, torch.ones_like(weight_N1HW), weight_N1HW / mean_N111)


def attention_pool_reference(x_NCHW: Tensor, parts: int, normalize: str) -> Tensor:
    """The operator in plain torch operations, (N, C, P) of the input's type."""
    step, size = windows(x_NCHW.shape[2], parts)
    weighted_NCHW = x_NCHW.float()
    if normalize != "none":
        weighted_NCHW = weighted_NCHW * attention_map(x_NCHW, normalize)
    kernel = (size, x_NCHW.shape[3])
    pooled_NCP1 = F.avg_pool2d(weighted_NCHW, kernel, (step, x_NCHW.shape[3]))
    return pooled_NCP1.flatten(2).to(x_NCHW.dtype)


@torch.library.custom_op("sa_deploy::attention_pool", mutates_args=())
def _attention_pool(x: Tensor, parts: int, normalize: str) -> Tensor:
    return attention_pool_reference(x, parts, normalize)


@_attention_pool.register_fake
def _shape_rule(x: Tensor, parts: int, normalize: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], parts))


def _keep(ctx: Any, inputs: tuple[Tensor, int, str], output: Tensor) -> None:
    x, ctx.parts, ctx.normalize = inputs
    ctx.save_for_backward(x)


def _gradient(ctx: Any, grad_NCP: Tensor) -> tuple[Tensor, None, None]:
    """With D the gradient of ``X * A``: dX = D * A + (path through A).

    For A = W / mean(W): dW = (dA - mean(dA * A)) / mean(W). ``sum`` has W = mean of X over C, so
    each channel receives dW / C. ``softmax`` has dW * W / mean(W) = A * (dA - mean(dA * A)), which
    each channel of the sum receives whole.
    """
    (x_NCHW,) = ctx.saved_tensors
    _, c, h, w = x_NCHW.shape
    step, size = windows(h, ctx.parts)
    x_NCHW = x_NCHW.float()
    spread_NCHW = torch.ops.aten.avg_pool2d_backward(
        grad_NCP.float().unsqueeze(3), x_NCHW, [size, w], [step, w], [0, 0], False, True, None
    )
    attention_N1HW = attention_map(x_NCHW, ctx.normalize)
    grad_NCHW = spread_NCHW * attention_N1HW
    if ctx.normalize != "none":
        through_N1HW = (spread_NCHW * x_NCHW).sum(dim=1, keepdim=True)
        centred_N1HW = through_N1HW - (through_N1HW * attention_N1HW).mean(dim=(2, 3), keepdim=True)
        if ctx.normalize == "softmax":
            grad_NCHW = grad_NCHW + attention_N1HW * centred_N1HW
        else:
            mean_N111 = x_NCHW.mean(dim=(1, 2, 3), keepdim=True)
            scale_N111 = torch.where(mean_N111 == 0, 0.0, 1.0 / (c * mean_N111))
            grad_NCHW = grad_NCHW + centred_N1HW * scale_N111
    return grad_NCHW.to(grad_NCP.dtype), None, None


_attention_pool.register_autograd(_gradient, setup_context=_keep)


def attention_pool(x_NCHW: Tensor, parts: int = 1, normalize: Normalize = "sum") -> Tensor:
    """Attention-weighted average pooling over ``parts`` horizontal windows.

    Args:
        x_NCHW: (N, C, H, W) feature map of any float type; sums are taken in float32.
        parts: number of windows P; windows follow :func:`sa_runtime.attention_pool.windows`.
        normalize: ``sum``, ``softmax`` or ``none``.

    Returns:
        (N, C, P) of the input's type.

    >>> attention_pool(torch.ones(2, 3, 6, 4), parts=3).shape
    torch.Size([2, 3, 3])
    """
    if (lowering := _lowering.get()) is not None:
        return lowering(x_NCHW, parts, normalize)
    result: Tensor = torch.ops.sa_deploy.attention_pool(x_NCHW, parts, normalize)
    return result
