"""A foreign graph between normalisation and scaling to unit length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sa_export.foreign import ForeignModel
from sa_export.onnx_graph import (
    add_constant,
    node_with_axis,
    rename_tensor,
    set_nodes,
    tensor_names,
)
from sa_export.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PREFIX = "sa_deploy_"
"""Begins the names of the tensors and nodes that are added."""
_IMAGES = "images"
_EMBEDDINGS = "embeddings"


def wrap(model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing) -> None:
    """Put normalisation before and scaling to unit length behind a model, in place."""
    from onnx import TensorProto, helper

    image, output = foreign.image, foreign.output
    for name in {_IMAGES, _EMBEDDINGS} & tensor_names(model):
        rename_tensor(model, name, f"{PREFIX}original_{name}")
        image = f"{PREFIX}original_{name}" if image == name else image
        output = f"{PREFIX}original_{name}" if output == name else output
    before = _before(model, foreign, preprocessing, image)
    after = _after(model, output)
    kept = [value for value in model.graph.input if value.name != image]
    batch = foreign.batch or "N"
    size = [batch, foreign.height, foreign.width, 3]
    del model.graph.input[:]
    model.graph.input.extend(
        [helper.make_tensor_value_info(_IMAGES, TensorProto.UINT8, size), *kept]
    )
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(_EMBEDDINGS, TensorProto.FLOAT, [batch, foreign.dim])
    )
    set_nodes(model, [*before, *model.graph.node, *after])


def _before(
    model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing, image: str
) -> list[NodeProto]:
    """uint8 NHWC BGR -> the tensor ``image``."""
    from onnx import TensorProto, helper

    mean = np.array(preprocessing.mean) * preprocessing.divisor
    scale = 1 / (np.array(preprocessing.std) * preprocessing.divisor)
    kind = TensorProto.FLOAT16 if foreign.half else TensorProto.FLOAT
    # Cast first: it is the one operation that TensorRT does on uint8.
    steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("Cast", (), {"to": TensorProto.FLOAT})
    ]
    if preprocessing.colour == "rgb":
        order = add_constant(model, f"{PREFIX}order", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", (order,), {"axis": 3}))
    steps += [
        ("Sub", (add_constant(model, f"{PREFIX}mean", mean.astype(np.float32)),), {}),
        ("Mul", (add_constant(model, f"{PREFIX}scale", scale.astype(np.float32)),), {}),
    ]
    if foreign.layout == "nchw":
        steps.append(("Transpose", (), {"perm": [0, 3, 1, 2]}))
    steps.append(("Cast", (), {"to": kind}))
    nodes, source = [], _IMAGES
    for index, (op_type, constants, attributes) in enumerate(steps):
        target = image if index == len(steps) - 1 else f"{PREFIX}pixels_{index}"
        node = helper.make_node(op_type, [source, *constants], [target], **attributes)
        node.name = f"{PREFIX}before_{index}"
        nodes.append(node)
        source = target
    return nodes


def _after(model: ModelProto, output: str) -> list[NodeProto]:
    """The tensor ``output`` -> (N, D) float32 rows of unit length."""
    from onnx import TensorProto, helper

    flat, wide, length, bounded = (
        f"{PREFIX}{name}" for name in ("flat", "wide", "length", "bounded")
    )
    least = add_constant(model, f"{PREFIX}least", np.array(1e-12, np.float32))
    nodes = [
        helper.make_node("Flatten", [output], [flat], axis=1),
        helper.make_node("Cast", [flat], [wide], to=TensorProto.FLOAT),
        node_with_axis(model, "ReduceL2", wide, length, 1, keepdims=1),
        helper.make_node("Max", [length, least], [bounded]),
        helper.make_node("Div", [wide, bounded], [_EMBEDDINGS]),
    ]
    for index, node in enumerate(nodes):
        node.name = f"{PREFIX}after_{index}"
    return nodes
