"""A foreign graph between normalisation and scaling to unit length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sa_export.foreign import ForeignModel
from sa_export.kinds import InputKind
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

_Step = tuple[str, tuple[str, ...], dict[str, Any]]
"""An operator, its constants and its attributes."""
PREFIX = "sa_deploy_"
"""Begins the names of the tensors and nodes that are added."""
_IMAGES = "images"
_EMBEDDINGS = "embeddings"


def wrap(
    model: ModelProto,
    foreign: ForeignModel,
    preprocessing: Preprocessing,
    input_kind: InputKind = "uint8-nhwc",
) -> None:
    """Put normalisation before and scaling to unit length behind a model, in place."""
    from onnx import TensorProto, helper

    image, output = foreign.image, foreign.output
    for name in {_IMAGES, _EMBEDDINGS} & tensor_names(model):
        rename_tensor(model, name, f"{PREFIX}original_{name}")
        image = f"{PREFIX}original_{name}" if image == name else image
        output = f"{PREFIX}original_{name}" if output == name else output
    steps = (_of_bytes if input_kind == "uint8-nhwc" else _of_planes)(model, foreign, preprocessing)
    before = _before(steps, image)
    after = _after(model, output)
    kept = [value for value in model.graph.input if value.name != image]
    batch = foreign.batch or "N"
    kind, size = TensorProto.UINT8, [batch, foreign.height, foreign.width, 3]
    if input_kind == "nchw-float":
        kind, size = TensorProto.FLOAT, [batch, 3, foreign.height, foreign.width]
    del model.graph.input[:]
    model.graph.input.extend([helper.make_tensor_value_info(_IMAGES, kind, size), *kept])
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(_EMBEDDINGS, TensorProto.FLOAT, [batch, foreign.dim])
    )
    set_nodes(model, [*before, *model.graph.node, *after])


def _of_bytes(
    model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing
) -> list[_Step]:
    """uint8 NHWC BGR -> what the model wants."""
    from onnx import TensorProto

    mean = np.array(preprocessing.mean) * preprocessing.divisor
    scale = 1 / (np.array(preprocessing.std) * preprocessing.divisor)
    # Cast first: it is the one operation that TensorRT does on uint8.
    steps: list[_Step] = [("Cast", (), {"to": TensorProto.FLOAT})]
    if preprocessing.colour == "rgb":
        order = add_constant(model, f"{PREFIX}order", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", (order,), {"axis": 3}))
    steps += [
        ("Sub", (add_constant(model, f"{PREFIX}mean", mean.astype(np.float32)),), {}),
        ("Mul", (add_constant(model, f"{PREFIX}scale", scale.astype(np.float32)),), {}),
    ]
    if foreign.layout == "nchw":
        steps.append(("Transpose", (), {"perm": [0, 3, 1, 2]}))
    return [*steps, _to_its_kind(foreign)]


def _of_planes(
    model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing
) -> list[_Step]:
    """float32 NCHW RGB from 0 to 1 -> what the model wants."""
    share = preprocessing.divisor / 255
    mean = np.array(preprocessing.mean).reshape(3, 1, 1) * share
    scale = 1 / (np.array(preprocessing.std).reshape(3, 1, 1) * share)
    steps: list[_Step] = []
    if preprocessing.colour == "bgr":
        order = add_constant(model, f"{PREFIX}order", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", (order,), {"axis": 1}))
    steps += [
        ("Sub", (add_constant(model, f"{PREFIX}mean", mean.astype(np.float32)),), {}),
        ("Mul", (add_constant(model, f"{PREFIX}scale", scale.astype(np.float32)),), {}),
    ]
    if foreign.layout == "nhwc":
        steps.append(("Transpose", (), {"perm": [0, 2, 3, 1]}))
    return [*steps, _to_its_kind(foreign)]


def _to_its_kind(foreign: ForeignModel) -> _Step:
    from onnx import TensorProto

    return "Cast", (), {"to": TensorProto.FLOAT16 if foreign.half else TensorProto.FLOAT}


def _before(steps: list[_Step], image: str) -> list[NodeProto]:
    """Nodes from the input to the tensor ``image``."""
    from onnx import helper

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
