"""The pattern that OpenVINO computes wrongly: found, rewritten, and right afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from sa_export.openvino_workarounds import rewrite_trapped, trapped_nodes

C, H, W = 16, 8, 4


def pooled(op_type: str, opset: int, keepdims: int, *, axes: tuple[int, ...] = (2,)) -> ModelProto:
    """(N, C, H, W) -> Reshape (N, C, H*W) -> a reduction over the last axis -> times a channel."""
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "shape": np.array([0, C, -1], np.int64),
        "scale": rng.normal(size=(1, C, 1) if keepdims else (1, C)).astype(np.float32),
        "shift": rng.normal(size=(1, C, 1) if keepdims else (1, C)).astype(np.float32),
    }
    shape = ["N", "channels", "one"][: 2 + keepdims]
    inputs, attributes = ["flat"], {}
    if not op_type.startswith("Global"):
        attributes["keepdims"] = keepdims
        if opset >= (13 if op_type == "ReduceSum" else 18):
            constants["axes"] = np.array(axes, np.int64)
            inputs.append("axes")
        else:
            attributes["axes"] = list(axes)  # type: ignore[assignment]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node(op_type, inputs, ["mean"], **attributes),  # type: ignore[arg-type]
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "pooled",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", C, H, W])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    checker.check_model(model)
    return model


def on_onnxruntime(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0], np.float32)


def on_openvino(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.array(compiled(x)[0], np.float32)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("op_type", "opset"),
    [
        ("ReduceMean", 11),
        ("ReduceMean", 18),
        ("ReduceSum", 11),
        ("ReduceSum", 13),
        ("ReduceMax", 18),
        ("ReduceL2", 18),
        ("GlobalAveragePool", 18),
    ],
)
def test_a_rewritten_graph_is_right_on_openvino_at_any_batch(
    op_type: str, opset: int, keepdims: int
) -> None:
    if op_type.startswith("Global") and not keepdims:
        pytest.skip("a global pool keeps its axes")
    model = pooled(op_type, opset, keepdims)
    assert [node.op_type for node in trapped_nodes(model)] == [op_type]
    x = np.random.default_rng(1).random((5, C, H, W), np.float32)
    expected = on_onnxruntime(model, x)
    assert rewrite_trapped(model) == 1
    checker.check_model(model, full_check=True)
    assert trapped_nodes(model) == []
    np.testing.assert_allclose(on_onnxruntime(model, x), expected, rtol=1e-6)
    for batch in (1, 2, 5):
        found = on_openvino(model, x[:batch])
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-5, atol=1e-6)


def test_the_trap_is_real() -> None:
    """As it stands the pattern is right alone and wrong in a batch: what is guarded against.

    Where this fails OpenVINO has mended it, and the rewriting can go.
    """
    model = pooled("ReduceMean", 18, 1)
    x = np.random.default_rng(1).random((5, C, H, W), np.float32)
    expected = on_onnxruntime(model, x)
    np.testing.assert_allclose(on_openvino(model, x[:1]), expected[:1], rtol=1e-5, atol=1e-6)
    assert np.abs(on_openvino(model, x) - expected).max() > 0.1


@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_other_reductions_are_left_alone(axes: tuple[int, ...]) -> None:
    model = pooled("ReduceMean", 18, 1, axes=axes)
    before = model.SerializeToString()
    assert trapped_nodes(model) == []
    assert rewrite_trapped(model) == 0
    assert model.SerializeToString() == before


def test_negative_axes_and_constant_nodes_are_understood() -> None:
    model = pooled("ReduceMean", 18, 1, axes=(-1,))
    assert len(trapped_nodes(model)) == 1
    axes = next(item for item in model.graph.initializer if item.name == "axes")
    node = helper.make_node("Constant", [], ["axes"], value=axes)
    model.graph.initializer.remove(axes)
    model.graph.node.insert(0, node)
    assert len(trapped_nodes(model)) == 1


def test_a_trap_inside_a_function_is_found() -> None:
    inner = pooled("ReduceMean", 18, 1)
    constants = [
        helper.make_node("Constant", [], [item.name], value=item)
        for item in inner.graph.initializer
    ]
    function = helper.make_function(
        "local", "Pool", ["x"], ["y"], [*constants, *inner.graph.node],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Pool", ["x"], ["y"], domain="local")],
            "caller",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", C, H, W])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "a", "b"])],
        ),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("local", 1)],
        ir_version=8,
    )
    assert [node.op_type for node in trapped_nodes(model)] == ["ReduceMean"]
