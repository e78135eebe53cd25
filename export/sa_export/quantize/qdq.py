"""Explicit Q/DQ nodes in an ONNX graph.

A layer is a convolution, or a product with a constant matrix (linear layers, and those of
attention blocks). Quantising it puts a pair of QuantizeLinear and DequantizeLinear on its input and
stores its weights as int8, symmetric for every output channel. All consumers of a quantised tensor
that compute in int8 (layers, residual additions) read the same pair.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa_export.quantize.layers import is_depthwise, layer_nodes, output_axis, quantised_tensors
from sa_export.quantize.scheme import Scheme, activation_parameters, quantised_weights

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def quantise(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    keep: Collection[str] = (),
) -> ModelProto:
    """A copy of a model with Q/DQ nodes.

    Args:
        model: computing in the scheme's ``rest``.
        ranges: smallest and largest value of every activation of :func:`quantised_tensors`.
        scheme: how.
        keep: the layers that stay as they are.
    """
    quantised = type(model)()
    quantised.CopyFrom(model)
    graph = quantised.graph
    by_output = layer_nodes(quantised)
    writer = _Writer(graph, scheme)
    pairs = {
        tensor: writer.pair(tensor, ranges[tensor])
        for tensor in quantised_tensors(model, scheme, keep)
    }
    nodes: list[NodeProto] = []
    for value in graph.input:
        nodes += pairs.get(value.name, [])
    for node in graph.node:
        layer = by_output.get(node.output[0])
        if (layer is not None and layer not in keep) or node.op_type == "Add":
            read = list(node.input)
            node.input[:] = [f"{name}_dq" if name in pairs else name for name in read]
            if layer is not None:
                nodes += writer.parameters(node, read)
        nodes.append(node)
        for tensor in node.output:
            nodes += pairs.get(tensor, [])
    ordered = list(nodes)
    del graph.node[:]
    graph.node.extend(ordered)
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return quantised


class _Writer:
    """Makes Q/DQ nodes and their constants for one graph."""

    def __init__(self, graph: GraphProto, scheme: Scheme) -> None:
        self._graph = graph
        self._scheme = scheme
        self._weights = {item.name: item for item in graph.initializer}
        self._scales: dict[str, np.float32] = {}
        self._channel_scales: dict[str, NDArray[np.float32]] = {}
        self._biases: set[str] = set()

    def pair(self, tensor: str, span: tuple[float, float]) -> list[NodeProto]:
        """QuantizeLinear and DequantizeLinear of an activation."""
        from onnx import helper

        scale, zero = activation_parameters(span, self._scheme)
        self._scales[tensor] = scale
        inputs = [
            self._constant(f"{tensor}_scale", self._float(np.array(scale))),
            self._constant(f"{tensor}_zero_point", zero),
        ]
        quantize = helper.make_node(
            "QuantizeLinear", [tensor, *inputs], [f"{tensor}_q"], name=f"{tensor}_QuantizeLinear"
        )
        return [quantize, self._dequantize(tensor, f"{tensor}_q", inputs)]

    def parameters(self, node: NodeProto, read: Sequence[str]) -> list[NodeProto]:
        """DequantizeLinear of a convolution's weights and bias, which it is made to read.

        Args:
            node: the convolution.
            read: its inputs before they were quantised.
        """
        half = self._scheme.rest == "fp16"
        weights = self._value(read[1])
        axis = output_axis(node, weights.ndim)
        made = []
        node.input[1] = f"{read[1]}_dq"
        if read[1] not in self._channel_scales:  # nodes may share weights
            # Outputs first, inputs second, as convolutions have them.
            pairs = self._scheme.pairs and not is_depthwise(node, len(weights))
            values, scale_O = quantised_weights(
                np.moveaxis(weights, axis, 0), half=half, pairs=pairs
            )
            self._channel_scales[read[1]] = scale_O
            stored = np.ascontiguousarray(np.moveaxis(values, 0, axis))
            made.append(self._stored(read[1], stored, scale_O, axis))
        scale_O = self._channel_scales[read[1]]
        biased = len(read) > 2 and read[2]  # a bias of zeros is left out of the graph
        if self._scheme.int_bias and biased and node.op_type == "Conv":
            bias_scale_O = (scale_O * self._scales[read[0]]).astype(np.float32)
            bias_O = np.round(self._value(read[2]).astype(np.float64) / bias_scale_O)
            name = read[2] if read[2] not in self._biases else f"{node.output[0]}_bias"
            self._biases.add(name)
            node.input[2] = f"{name}_dq"
            made.append(self._stored(name, bias_O.astype(np.int32), bias_scale_O))
        return made

    def _value(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        return numpy_helper.to_array(self._weights[name]).astype(np.float32)

    def _stored(
        self,
        name: str,
        values: NDArray[np.integer[Any]],
        scale_O: NDArray[np.float32],
        axis: int = 0,
    ) -> NodeProto:
        inputs = [
            self._constant(f"{name}_scale", self._float(scale_O)),
            self._constant(f"{name}_zero_point", np.zeros(len(scale_O), values.dtype)),
        ]
        return self._dequantize(name, self._constant(f"{name}_q", values), inputs, axis)

    def _dequantize(
        self, name: str, quantised: str, parameters: list[str], axis: int = 0
    ) -> NodeProto:
        from onnx import helper

        return helper.make_node(
            "DequantizeLinear",
            [quantised, *parameters],
            [f"{name}_dq"],
            name=f"{name}_DequantizeLinear",
            axis=axis,
        )

    def _float(self, scale: NDArray[np.float32]) -> NDArray[Any]:
        """Scales have the type of what they scale."""
        return scale.astype(np.float16) if self._scheme.rest == "fp16" else scale

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name
