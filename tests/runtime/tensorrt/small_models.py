"""Graphs of one or two layers with a contract, sound and broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec

Nodes = Callable[[], list[onnx.NodeProto]]


def RELU() -> list[onnx.NodeProto]:
    return [helper.make_node("Relu", ["float"], ["embeddings"], name="relu")]


def UNSUPPORTED() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Det", ["float"], ["d"], name="my_det"),
        helper.make_node("Relu", ["float"], ["embeddings"]),
    ]


def FOREIGN() -> list[onnx.NodeProto]:
    return [helper.make_node("Frobnicate", ["float"], ["embeddings"], name="frob", domain="my")]


def BODYLESS() -> list[onnx.NodeProto]:
    return [
        helper.make_node(
            "AttentionPool",
            ["float"],
            ["embeddings"],
            name="pool",
            domain="sa_deploy",
            parts=2,
            normalize="sum",
        )
    ]


def quantised(zero: int, kind: int) -> Nodes:
    def nodes() -> list[onnx.NodeProto]:
        point = helper.make_tensor("z", kind, [], [zero])
        return [
            helper.make_node("Constant", [], ["unused"], value=point),
            helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["q"], name="my_q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["embeddings"]),
        ]

    return nodes


def write_model(
    path: Path,
    nodes: Nodes,
    *,
    batch: int | None = None,
    zero: tuple[int, int] = (0, TensorProto.INT8),
) -> Path:
    """A float NHWC graph of 4 x 4 pixels around ``nodes``, with a contract."""
    contract = Contract(
        input=InputSpec(height=4, width=4, dtype="float32"),
        output=OutputSpec(dim=48),
        weights_sha256="0" * 64,
        space="test",
        max_batch=batch,
        fixed_batch=batch is not None,
    )
    size = "N" if batch is None else batch
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["images"], ["float"], perm=[0, 3, 1, 2]), *nodes()],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [size, 4, 4, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("zero", zero[1], [], [zero[0]]),
        ],
    )
    opsets = [helper.make_opsetid(name, n) for name, n in (("", 18), ("my", 1), ("sa_deploy", 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    path.write_bytes(model.SerializeToString())
    return path
