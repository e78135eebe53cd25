"""What stands for the AttentionPool operator while the network is traced.

Shape suffixes: N images, C channels, H x W map, P windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sa_export.attention_pool import DOMAIN, OP_TYPE, OPSET, attention_pool_node_attributes
from sa_runtime.attention_pool import windows


def plain_attention(x_NCHW: Tensor, normalize: str) -> Tensor:
    """The attention A of mean 1, (N, 1, H, W) float32, in operations that export one to one.

    The map is cast before it is summed, because exporters cast a half-precision mean after its sum;
    every reduction sees four dimensions, because OpenVINO fuses those over three wrongly.
    """
    x32_NCHW = x_NCHW.float()
    if normalize == "softmax":
        total_N1HW = x32_NCHW.sum(dim=1, keepdim=True)
        weight_N1HW = torch.exp(total_N1HW - total_N1HW.amax(dim=(2, 3), keepdim=True))
    else:
        weight_N1HW = x32_NCHW.mean(dim=1, keepdim=True)
    mean_N111 = weight_N1HW.mean(dim=(2, 3), keepdim=True)
    return torch.where(mean_N111 == 0, 1.0, weight_N1HW / mean_N111)


def plain_pool(x_NCHW: Tensor, parts: int, normalize: str) -> Tensor:
    """The operator in standard operations, (N, C, P) float32."""
    # As plain integers, which tracers take for constants.
    height, width = int(x_NCHW.shape[2]), int(x_NCHW.shape[3])
    step, size = windows(height, parts)
    weighted_NCHW = x_NCHW.float()
    if normalize != "none":
        weighted_NCHW = weighted_NCHW * plain_attention(x_NCHW, normalize)
    return F.avg_pool2d(weighted_NCHW, (size, width), (step, width)).flatten(2)


def symbolic_pool(x_NCHW: Tensor, parts: int, normalize: str) -> Tensor:
    """The operator as one ONNX node, (N, C, P) of the input's type; plain pooling as plain_pool."""
    if normalize == "none":
        return plain_pool(x_NCHW, parts, normalize)
    n, c, h, w = x_NCHW.shape
    attributes = attention_pool_node_attributes(parts, normalize, h, w)  # type: ignore[arg-type]
    node: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OP_TYPE}",
        (x_NCHW,),
        attributes,
        dtype=x_NCHW.dtype,
        shape=(n, c, parts),
        version=OPSET,
    )
    return node
