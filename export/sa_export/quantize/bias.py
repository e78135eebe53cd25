"""Biases that take back what rounding the weights shifts on average.

A convolution's rounded weights err by a constant; on inputs of known mean they shift each output by
the product of the two (Nagel et al., arXiv 1906.04721, section 4.2). Shape suffixes as in
:mod:`sa_export.quantize.equalise`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sa_export.quantize.calibrate import Channels
from sa_export.quantize.layers import is_depthwise, layer_nodes
from sa_export.quantize.scheme import Scheme, quantised_weights

if TYPE_CHECKING:
    from onnx import ModelProto


def bias_corrected(
    model: ModelProto,
    channels: Mapping[str, Channels],
    scheme: Scheme,
    keep: Collection[str] = (),
) -> ModelProto:
    """A copy of a model whose biases are those of its convolutions in int8.

    Convolutions without a bias, and those that share one, stay as they are.

    Args:
        model: floating.
        channels: of every tensor that a convolution reads.
        scheme: how weights are rounded.
        keep: the layers that stay in float.
    """
    from onnx import numpy_helper

    copied = type(model)()
    copied.CopyFrom(model)
    stored = {item.name: item for item in copied.graph.initializer}
    names = [name for node in copied.graph.node for name in node.input]
    by_output = layer_nodes(copied)
    for node in copied.graph.node:
        layer = by_output.get(node.output[0])
        biased = len(node.input) > 2 and names.count(node.input[2]) == 1
        known = node.op_type == "Conv" and node.input[0] in channels
        if layer is None or layer in keep or not (biased and known):
            continue
        kept = numpy_helper.to_array(stored[node.input[1]])
        weights_OI = kept.astype(np.float32)
        pairs = scheme.pairs and not is_depthwise(node, len(kept))
        values, scale_O = quantised_weights(weights_OI, half=scheme.rest == "fp16", pairs=pairs)
        ones = [1] * (weights_OI.ndim - 1)
        error_OI = (weights_OI - values * scale_O.reshape(-1, *ones)).reshape(*kept.shape[:2], -1)
        mean_C = channels[node.input[0]].mean_C
        groups = len(mean_C) // kept.shape[1]
        mean_OI = np.repeat(mean_C.reshape(groups, -1), len(kept) // groups, axis=0)
        bias = numpy_helper.to_array(stored[node.input[2]])
        shifted = bias + (error_OI.sum(axis=2) * mean_OI).sum(axis=1)
        name = node.input[2]
        stored[name].CopyFrom(numpy_helper.from_array(shifted.astype(bias.dtype), name))
    return copied
