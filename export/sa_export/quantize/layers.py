"""What of a graph is quantised: its layers, and the activations that they read."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sa_export.quantize.scheme import Scheme

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_BACKBONE = "base."
_PRODUCTS = ("Conv", "MatMul", "Gemm")


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
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS and len(node.input) > 1]
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


def _activated(model: ModelProto, tensor: str) -> str:
    """The ReLU's output where a ReLU is what reads a tensor."""
    for node in model.graph.node:
        if node.op_type == "Relu" and node.input[0] == tensor:
            return str(node.output[0])
    return tensor
