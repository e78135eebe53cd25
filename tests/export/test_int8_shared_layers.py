"""int8 of a layer that a network calls several times, as an OSNet calls its gates."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sa_export.quantize.layers import layers, quantised_tensors
from sa_export.quantize.qdq import quantise
from sa_export.quantize.scheme import SCHEMES, Target


def called_twice() -> onnx.ModelProto:
    """conv(relu(conv(x))) with one convolution and its bias; its input and its map differ in
    range by far."""
    rng = np.random.default_rng(2)
    weights = rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32)
    bias = rng.normal(0, 5, 4).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "base.gate.weight", "base.gate.bias"], ["one"], name="a"),
        helper.make_node("Relu", ["one"], ["two"], name="b"),
        helper.make_node("Conv", ["two", "base.gate.weight", "base.gate.bias"], ["y"], name="c"),
    ]
    shape: list[str | int | None] = ["n", 4, 8, 8]
    graph = helper.make_graph(
        nodes,
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(weights, "base.gate.weight"),
            numpy_helper.from_array(bias, "base.gate.bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("target", [name for name in get_args(Target) if name != "tensorrt"])
def test_each_call_computes_as_in_float(target: str) -> None:
    model, scheme = called_twice(), SCHEMES[target]  # type: ignore[index]
    assert layers(model) == ["gate"]
    x = np.random.default_rng(3).uniform(0, 0.1, (2, 4, 8, 8)).astype(np.float32)
    weights, bias = (numpy_helper.to_array(item) for item in model.graph.initializer)
    between = np.einsum("oi,nihw->nohw", weights[:, :, 0, 0], x) + bias[:, None, None]
    ranges = {"x": (0.0, 0.1), "two": (0.0, float(between.max()))}
    assert set(quantised_tensors(model, scheme)) == set(ranges)
    quantised = quantise(model, ranges, scheme)
    onnx.checker.check_model(quantised)
    wanted = run(model, x)
    assert np.abs(run(quantised, x) - wanted).max() <= 0.02 * np.abs(wanted).max()
