"""The network as one ONNX file with the AttentionPool operator and the contract inside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sa_export.attention_pool import (
    DOMAIN,
    OP_TYPE,
    OPSET,
    attention_pool_function,
    attention_pool_node_attributes,
)
from sa_export.deploy import DeployNetwork
from sa_runtime.contract import METADATA_KEY, Contract
from sa_runtime.extras import require
from sa_training.attention_pool import attention_pool_reference, lowered_to

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 18


def onnx_from_network(
    network: DeployNetwork, contract: Contract, *, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """Trace the deployed network into ONNX.

    Args:
        network: from crops to unit vectors.
        contract: written into the file's ``metadata_props``.
        opset: of the standard operators, at least 18.

    Returns:
        A checked model with a dynamic batch. Pooling with attention is one ``AttentionPool`` node
        of domain ``sa_deploy`` with a function body; plain pooling is ``AveragePool``.

    Raises:
        MissingPackageError: onnx or onnxscript is not installed.
    """
    require("onnxscript", extra="export", purpose="export to ONNX")
    onnx = require("onnx", extra="export", purpose="export to ONNX")
    spec = contract.input
    example = torch.zeros((2, spec.height, spec.width, 3), dtype=torch.uint8)
    with lowered_to(_symbolic_node), warnings.catch_warnings(), torch.no_grad():
        # The exporter's own libraries warn of their own deprecations.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=[spec.name],
            output_names=[contract.output.name],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_batch(model)
    if any(node.op_type == OP_TYPE for node in model.graph.node):
        model.functions.append(attention_pool_function(network.normalize, opset))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    model.producer_name = "sa-deploy"
    model.producer_version = contract.producer
    onnx.checker.check_model(model, full_check=True)
    return model


def _symbolic_node(x_NCHW: Tensor, parts: int, normalize: str) -> Tensor:
    n, c, h, w = x_NCHW.shape
    if normalize == "none":
        return attention_pool_reference(x_NCHW, parts, normalize)
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


def _name_batch(model: onnx.ModelProto) -> None:
    """Call the batch axis ``N`` at the model's border and drop the tracer's notes."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
