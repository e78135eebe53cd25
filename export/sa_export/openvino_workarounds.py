"""A pattern that OpenVINO's processor plugin computes wrongly, found and rewritten in ONNX graphs.

A reduction of an (N, C, L) tensor over L, followed by a multiplication for each channel, is fused
so that it is right for the first image of a batch only, without a warning (OpenVINO 2026.4; every
Reduce operator, GlobalAveragePool and GlobalMaxPool). Over (N, C, 1, L) it is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa_export.onnx_graph import inlined, node_with_axis, set_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_GLOBAL_POOLS = ("GlobalAveragePool", "GlobalMaxPool")


def trapped_nodes(model: ModelProto) -> list[NodeProto]:
    """Nodes that reduce three dimensions over the last one.

    Functions of the model are looked into as they would be inlined.
    """
    return _trapped(inlined(model))


def rewrite_trapped(model: ModelProto) -> int:
    """Make every such node reduce four dimensions, in place.

    Functions of the model stay as they are.

    Returns:
        How many were rewritten.
    """
    found = {node.output[0]: node for node in _trapped(model)}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _lifted(model, node) if node.output[0] in found else [node]
    if found:
        set_nodes(model, nodes)
        del model.graph.value_info[:]
    return len(found)


def _trapped(model: ModelProto) -> list[NodeProto]:
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return [
        node
        for node in model.graph.node
        if (node.op_type in _GLOBAL_POOLS or node.op_type.startswith("Reduce"))
        and ranks.get(node.input[0]) == 3
        and (node.op_type in _GLOBAL_POOLS or {a % 3 for a in _axes(model, node)} == {2})
    ]


def _axes(model: ModelProto, node: NodeProto) -> list[int]:
    """The axes of a reduction: an attribute in old opsets, a constant input in new ones."""
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.name == "axes":
            return list(attribute.ints)
    if len(node.input) < 2 or not node.input[1]:
        return []
    for item in model.graph.initializer:
        if item.name == node.input[1]:
            return [int(axis) for axis in numpy_helper.to_array(item).ravel()]
    for other in model.graph.node:
        if other.op_type == "Constant" and other.output[0] == node.input[1]:
            value = numpy_helper.to_array(other.attribute[0].t)
            return [int(axis) for axis in value.ravel()]
    return []


def _lifted(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    """(N, C, L) -> (N, C, 1, L), reduced over the last axis, and back."""
    from onnx import helper

    before, after = f"{node.output[0]}_lifted", f"{node.output[0]}_reduced"
    if node.op_type in _GLOBAL_POOLS:
        core = helper.make_node(node.op_type, [before], [after])
    else:
        kept = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        core = node_with_axis(model, node.op_type, before, after, 3, keepdims=kept)
    return [
        node_with_axis(model, "Unsqueeze", node.input[0], before, 2),
        core,
        node_with_axis(model, "Squeeze", after, node.output[0], 2),
    ]
