"""Small tools for ONNX graphs that need no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.artefact.external_data import WEIGHTS_KEY, weights_record

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_AXES_INPUT_SINCE = {"Unsqueeze": 13, "Squeeze": 13, "ReduceSum": 13}
"""Opset from which axes are an input; 18 for the other reductions, an attribute before."""


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators that a model uses."""
    versions = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    return int(next(versions))


def at_opset(model: ModelProto, least: int) -> ModelProto:
    """The model at this version of the standard operators at least."""
    if opset_of(model) >= least:
        return model
    from onnx import version_converter

    return version_converter.convert_version(model, least)


class OnnxWriter:
    """Writes an ONNX model with what travels inside an artefact.

    Args:
        model: its metadata and producer are changed.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._weights = weights_record(model)

    def __call__(self, metadata: Mapping[str, str], path: Path) -> None:
        """Write the file with these ``metadata_props`` and hashes of its weights, and no others."""
        set_metadata(self._model, {**metadata, WEIGHTS_KEY: self._weights})
        path.write_bytes(self._model.SerializeToString())


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Make these the only ``metadata_props`` of a model, and this project its producer."""
    from onnx import helper

    del model.metadata_props[:]
    helper.set_model_props(model, dict(metadata))
    model.producer_name = "sa-deploy"
    model.producer_version = version("sa-deploy")


def write_contract(model: ModelProto, contract: Contract) -> None:
    """Make a contract the only entry of a model's ``metadata_props``."""
    set_metadata(model, {METADATA_KEY: contract.to_json()})


def inlined(model: ModelProto) -> ModelProto:
    """The model with its functions in place of the nodes that call them."""
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


def add_constant(model: ModelProto, name: str, value: NDArray[Any]) -> str:
    """Add an initializer and return its name."""
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def node_with_axis(
    model: ModelProto, op_type: str, source: str, target: str, axis: int, **attributes: Any
) -> NodeProto:
    """A reduction, Squeeze or Unsqueeze over one axis, as the model's opset writes it."""
    from onnx import helper

    if opset_of(model) >= _AXES_INPUT_SINCE.get(op_type, 18):
        axes = add_constant(model, f"{target}_axis", np.array([axis], np.int64))
        return helper.make_node(op_type, [source, axes], [target], **attributes)
    return helper.make_node(op_type, [source], [target], axes=[axis], **attributes)


def rename_tensor(model: ModelProto, old: str, new: str) -> None:
    """Call a tensor by another name wherever it stands; subgraphs are not looked into."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if value.name == old:
            value.name = new
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def tensor_names(model: ModelProto) -> set[str]:
    """Names of all tensors of the graph."""
    names = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    return names | {name for node in model.graph.node for name in node.output}


def set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    """Replace the nodes of a model's graph."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
