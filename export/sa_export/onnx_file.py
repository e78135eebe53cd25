"""The network as one ONNX model with the AttentionPool operator inside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sa_export.attention_pool import OP_TYPE, attention_pool_function
from sa_export.deploy import DeployNetwork
from sa_export.lowering import plain_pool, symbolic_pool
from sa_export.onnx_graph import write_contract
from sa_export.openvino_workarounds import trapped_nodes
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import ParityError, bad_value
from sa_runtime.system.extras import require
from sa_training.attention_pool import lowered_to

if TYPE_CHECKING:
    from onnx import ModelProto

DEFAULT_OPSET = 18
BF16_OPSET = 22
"""The first whose convolution takes bfloat16."""


def onnx_from_network(
    network: DeployNetwork, contract: Contract, *, opset: int = DEFAULT_OPSET, plugin: bool = True
) -> ModelProto:
    """Trace the deployed network into ONNX.

    Args:
        network: from crops to unit vectors.
        contract: says what goes in and whether the batch is fixed; it travels inside.
        opset: of the standard operators, at least 18.
        plugin: pool with attention by one ``AttentionPool`` node of domain ``sa_deploy`` with a
            function body. Otherwise, and where there is no attention, by standard operators.

    Returns:
        A checked model with the contract in its ``metadata_props``.

    Raises:
        MissingPackageError: onnx or onnxscript is not installed.
        InputError: an opset without what the graph needs.
        ParityError: a graph that OpenVINO would compute wrongly, see
            :mod:`sa_export.openvino_workarounds`.
    """
    least = BF16_OPSET if network.spec.compute == "bf16" else DEFAULT_OPSET
    if opset < least:
        raise bad_value(
            "opset", opset, f"expected at least {least} at precision {network.spec.compute}"
        )
    require("onnxscript", extra="export", purpose="export to ONNX")
    onnx = require("onnx", extra="export", purpose="export to ONNX")
    with (
        lowered_to(symbolic_pool if plugin else plain_pool),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        # The exporter's own libraries warn of their own deprecations.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (example_input(contract),),
            dynamo=True,
            dynamic_shapes=dynamic_shapes(contract),
            input_names=[contract.input.name],
            output_names=list(network.spec.output_names),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    model: ModelProto = program.model_proto
    _clean(model, dynamic=not contract.fixed_batch)
    if any(node.op_type == OP_TYPE for node in model.graph.node):
        # One body serves every node: a network normalises all of its attention alike.
        model.functions.append(attention_pool_function(network.config.normalize, opset))
    write_contract(model, contract)
    onnx.checker.check_model(model, full_check=True)
    _refuse_traps(model)
    return model


def _refuse_traps(model: ModelProto) -> None:
    """No graph leaves with a reduction that OpenVINO computes wrongly above batch 1."""
    if nodes := trapped_nodes(model):
        names = ", ".join(f"{node.op_type} {node.name or node.output[0]}" for node in nodes)
        raise ParityError(
            f"the exported graph reduces three dimensions ({names}), which OpenVINO computes "
            "wrongly for every batch above 1; reduce four, as sa_export/lowering.py does"
        )


def example_input(contract: Contract) -> Tensor:
    """A black batch as the contract describes it, to trace with."""
    spec = contract.input
    batch = contract.max_batch if contract.fixed_batch and contract.max_batch else 2
    if spec.layout == "nhwc":
        return torch.zeros((batch, spec.height, spec.width, 3), dtype=torch.uint8)
    return torch.zeros((batch, 3, spec.height, spec.width))


def dynamic_shapes(contract: Contract) -> tuple[dict[int, object]] | None:
    """The batch axis as :mod:`torch.export` wants it described."""
    return None if contract.fixed_batch else ({0: torch.export.Dim.DYNAMIC},)


def _clean(model: ModelProto, *, dynamic: bool) -> None:
    """Call the batch axis ``N`` on the inputs and outputs and drop the tracer's notes."""
    if dynamic:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
