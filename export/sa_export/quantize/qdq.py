"""Explicit Q/DQ nodes in an ONNX graph.

A layer is a convolution, or a product with a constant matrix (linear layers, and those of
attention blocks). Quantising it puts a pair of QuantizeLinear and DequantizeLinear on its input and
stores its weights as int8, symmetric for every output channel. All consumers of a quantised tensor
that compute in int8 (layers, residual additions) read the same pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_export.kinds import FloatType
from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Target = Literal["tensorrt", "cpu", "any"]
FP16_SCALE_OPSET = 19
"""The first whose Q/DQ nodes take FP16 scales."""
_BACKBONE = "base."
_AXES = ("Conv", "MatMul", "Gemm")
_LEAST_SCALE = 1e-7
"""About the smallest number of FP16: scales must not vanish in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """How tensors are quantised.

    Attributes:
        unsigned: activations as uint8 with a zero point; otherwise int8, symmetric.
        additions: quantise both inputs of residual additions, also where no convolution reads them.
        int_bias: biases as int32 of the accumulator's scale; otherwise in float.
        pairs: keep the products of two neighbouring input channels within 16 bits.
        rest: type of what is not quantised.
    """

    unsigned: bool
    additions: bool
    int_bias: bool
    pairs: bool
    rest: FloatType

    @property
    def levels(self) -> int:
        """Steps from zero to the largest value."""
        return 255 if self.unsigned else 127


SCHEMES: dict[Target, Scheme] = {
    "tensorrt": Scheme(unsigned=False, additions=False, int_bias=False, pairs=False, rest="fp16"),
    "cpu": Scheme(unsigned=True, additions=True, int_bias=True, pairs=True, rest="fp32"),
    "any": Scheme(unsigned=False, additions=False, int_bias=False, pairs=True, rest="fp32"),
}
"""TensorRT takes symmetric int8 only and no int32 biases, and computes what is left in FP16.
Processors multiply uint8 with int8; there ``cpu`` is 4 times as fast as ``any`` on ONNX Runtime.
Those without VNNI add the products of two neighbouring input channels in 16 bits and saturate
silently: with weights up to 127 a sum was off by half. ``pairs`` keeps it within 16 bits, but for
depthwise convolutions, which need no such care (:func:`is_depthwise`)."""


def scheme_for(target: str) -> Scheme:
    """The scheme of a target.

    Raises:
        InputError: an unknown target.
    """
    if target not in SCHEMES:
        raise bad_value("target", target, f"unknown; choose from {', '.join(get_args(Target))}")
    return SCHEMES[target]


def layers(model: ModelProto) -> list[str]:
    """Names of the layers that can be quantised, in the order of the graph.

    A layer is called as in the network: ``layer1.0.conv2``. Of our own networks they are the
    backbone's convolutions, of others all convolutions and constant products but those of single
    vectors, which take no time.
    """
    return list(dict.fromkeys(layer_nodes(model).values()))


def layer_nodes(model: ModelProto) -> dict[str, str]:
    """Layer by the output of a node that computes it; nodes that share weights are one layer."""
    stored = {item.name: item for item in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _AXES and len(node.input) > 1]
    ours = [node for node in nodes if node.input[1].startswith(_BACKBONE)]
    if ours:
        return {node.output[0]: _layer(node) for node in ours if node.op_type == "Conv"}
    vectors = _single_vectors(model)
    return {
        node.output[0]: _layer(node)
        for node in nodes
        if node.input[1] in stored
        and len(stored[node.input[1]].dims) >= 2
        and _is_float(stored[node.input[1]])
        and node.output[0] not in vectors
        and not (node.op_type == "Gemm" and _attributes(node) - {"transB"})
    }


def _layer(node: NodeProto) -> str:
    return str(node.input[1]).removeprefix(_BACKBONE).removesuffix(".weight")


def _attributes(node: NodeProto) -> set[str]:
    return {
        item.name for item in node.attribute if item.name not in ("alpha", "beta") or item.f != 1
    }


def _is_float(item: TensorProto) -> bool:
    from onnx import TensorProto

    return item.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _single_vectors(model: ModelProto) -> set[str]:
    """Tensors of one vector for each image: (N, C, 1, 1) and (N, C)."""
    from onnx import shape_inference

    found = set()
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        if len(sizes) == 2 or (len(sizes) == 4 and sizes[2:] == [1, 1]):
            found.add(value.name)
    return found


def is_depthwise(node: NodeProto, outputs: int) -> bool:
    """Whether a node is a convolution of each channel by itself, which runtimes compute apart.

    They widen both factors before they multiply, so that no sum of two products saturates.
    """
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    return node.op_type == "Conv" and groups == outputs > 1


def output_axis(node: NodeProto, rank: int) -> int:
    """The axis of a layer's weights that its outputs stand on."""
    if node.op_type == "Gemm":
        return 0 if any(item.name == "transB" and item.i for item in node.attribute) else 1
    return rank - 1 if node.op_type == "MatMul" else 0


def quantised_tensors(model: ModelProto, scheme: Scheme, keep: Collection[str] = ()) -> list[str]:
    """The activations that get a Q/DQ pair when all layers but those in ``keep`` are quantised."""
    found: dict[str, None] = {}
    by_output = layer_nodes(model)
    for node in model.graph.node:
        layer = by_output.get(node.output[0])
        if layer is not None and layer not in keep:
            found[node.input[0]] = None
    if scheme.additions:
        # An addition computes in int8 only where its result goes on in int8.
        for node in model.graph.node:
            if node.op_type == "Add" and _activated(model, node.output[0]) in found:
                found.update(dict.fromkeys(node.input))
    return list(found)


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

        scale, zero = _activation_parameters(span, self._scheme)
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


def quantised_weights(
    weights_OIHW: NDArray[np.float32], *, half: bool = False, pairs: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 weights in -127..127 and the scale of each output channel.

    Args:
        weights_OIHW: to quantise; (O, I) of a product.
        half: round the scales up to FP16 first, as the graph will keep them; down would clip.
        pairs: two neighbouring input channels of one sign sum to 128 at most, so that 255 times
            each of them does not leave 16 bits. A channel keeps all of -127..127 where its largest
            weights have small neighbours.

    >>> values, scale = quantised_weights(np.array([[[[0.5, -1.27]]]], np.float32))
    >>> values.tolist(), [round(float(s), 4) for s in scale]
    ([[[[50, -127]]]], [0.01])
    """
    peak_O = np.abs(weights_OIHW).reshape(len(weights_OIHW), -1).max(axis=1)
    if pairs:
        peak_O = _pair_peak(weights_OIHW)
    scale_O = np.maximum(peak_O / 127, _LEAST_SCALE).astype(np.float32)
    if half:
        half_O = scale_O.astype(np.float16)
        half_O = np.where(half_O < scale_O, np.nextafter(half_O, np.float16(np.inf)), half_O)
        scale_O = half_O.astype(np.float32)
    values = np.round(weights_OIHW / scale_O.reshape(-1, *[1] * (weights_OIHW.ndim - 1)))
    return np.clip(values, -127, 127).astype(np.int8), scale_O


def _pair_peak(weights_OIHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest sum of an even input channel and the next, of one sign, for each output channel.

    Rounding both adds one at most. Of an odd number of channels any two may meet.
    """
    outputs, inputs, *kernel = weights_OIHW.shape
    if inputs % 2:
        peak_O = np.abs(weights_OIHW).reshape(outputs, -1).max(axis=1)
        # The only channel meets its neighbours in the kernel.
        return np.asarray(2 * peak_O, np.float32)
    split = weights_OIHW.reshape(outputs, inputs // 2, 2, *kernel)
    up, down = (np.maximum(sign * split, 0).sum(axis=2) for sign in (1, -1))
    return np.asarray(np.maximum(up, down).reshape(outputs, -1).max(axis=1), np.float32)


def _activation_parameters(
    span: tuple[float, float], scheme: Scheme
) -> tuple[np.float32, NDArray[np.uint8] | NDArray[np.int8]]:
    """Scale and zero point of a range that holds zero."""
    low, high = span
    if scheme.unsigned:
        scale = np.float32(max((high - low) / 255, _LEAST_SCALE))
        return scale, np.array(np.clip(round(-low / float(scale)), 0, 255), np.uint8)
    return np.float32(max(high / 127, -low / 127, _LEAST_SCALE)), np.array(0, np.int8)


def _activated(model: ModelProto, tensor: str) -> str:
    """The ReLU's output where a ReLU is what reads a tensor."""
    for node in model.graph.node:
        if node.op_type == "Relu" and node.input[0] == tensor:
            return str(node.output[0])
    return tensor
