"""Floating point operations of a graph: a multiply and an add are two."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shapes = dict[str, list[int]]


def graph_flops(model: ModelProto, image: str, shape: Sequence[int]) -> int:
    """Operations of a batch, of convolutions and matrix products alone, as torch counts them.

    Args:
        model: any graph of standard operators.
        image: name of its input.
        shape: of that input.

    Returns:
        0 where a shape cannot be told.
    """
    shapes = _shapes(model, image, shape)
    total = 0
    for node in model.graph.node:
        if node.op_type not in _COUNTS:
            continue
        try:
            total += _COUNTS[node.op_type](node, shapes)
        except (KeyError, IndexError):
            return 0
    return total


def _shapes(model: ModelProto, image: str, shape: Sequence[int]) -> Shapes:
    import onnx

    fixed = type(model)()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name == image:
            for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = size
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {item.name: list(item.dims) for item in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                found[value.name] = [dim.dim_value for dim in dims]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = list(node.attribute[0].t.dims)
    return found


def _convolution(node: NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _product(node: NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: NodeProto, shapes: Shapes) -> int:
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_COUNTS = {
    "Conv": _convolution,
    "QLinearConv": lambda node, shapes: (
        2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[3]][1:])
    ),
    "MatMul": _product,
    "Gemm": _gemm,
}
