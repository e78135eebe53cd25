"""Channels of like ranges: the same function in float, and less lost by rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from sa_export.quantize.bias import bias_corrected
from sa_export.quantize.calibrate import channels, histograms
from sa_export.quantize.equalise import equalised, streams
from sa_export.quantize.layers import quantised_tensors
from sa_export.quantize.qdq import quantise
from sa_export.quantize.scheme import SCHEMES, quantised_weights
from sa_training.ranges import value_range

CPU = SCHEMES["cpu"]


def conv(name: str, source: str, groups: int = 1) -> NodeProto:
    """A convolution; its padding keeps the size of 3x3 kernels."""
    inputs = [source, f"base.{name}.weight", f"base.{name}.bias"]
    pad = 1 if groups > 1 else 0
    return helper.make_node("Conv", inputs, [name], group=groups, pads=[pad] * 4)


def clip(source: str) -> NodeProto:
    return helper.make_node("Clip", [source, "zero", "six"], [f"{source}6"])


def blocks() -> ModelProto:
    """An inverted residual of MobileNetV2 between two convolutions; channels differ by far."""
    rng = np.random.default_rng(4)
    shapes = {
        "stem": (8, 3, 1, 1), "expand": (16, 8, 1, 1), "deep": (16, 1, 3, 3),
        "project": (8, 16, 1, 1), "last": (6, 8, 1, 1),
    }  # fmt: skip
    stored: dict[str, NDArray[np.float32]] = {
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    for name, shape in shapes.items():
        weights = rng.normal(0, 0.5, shape)
        spread = np.exp(rng.normal(0, 1.5, shape[0]))
        stored[f"base.{name}.weight"] = (weights * spread.reshape(-1, 1, 1, 1)).astype(np.float32)
        stored[f"base.{name}.bias"] = rng.normal(0, 0.2, shape[0]).astype(np.float32)
    nodes = [
        conv("stem", "x"),
        conv("expand", "stem"), clip("expand"), conv("deep", "expand6", 16), clip("deep"),
        conv("project", "deep6"), helper.make_node("Add", ["stem", "project"], ["sum"]),
        conv("last", "sum"),
    ]  # fmt: skip
    dims: list[str | int | None] = ["n", 3, 8, 8]
    graph = helper.make_graph(
        nodes, "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, ["n", "c", 8, 8])],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float64]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], np.float64)


def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(0, 1, (12, 3, 8, 8)).astype(np.float32)


def read_by_convolutions(model: ModelProto) -> list[str]:
    return list(dict.fromkeys(n.input[0] for n in model.graph.node if n.op_type == "Conv"))


def in_int8(model: ModelProto, x: NDArray[np.float32]) -> ModelProto:
    found = histograms(model, quantised_tensors(model, CPU), [x])
    return quantise(model, {n: value_range(h, "min-max", 255) for n, h in found.items()}, CPU)


def test_streams_follow_additions_and_end_at_what_is_no_convolution() -> None:
    found = {stream.writers: stream for stream in streams(blocks())}
    assert set(found) == {("stem", "project"), ("expand",), ("deep",)}
    residual = found["stem", "project"]
    assert sorted(residual.read) == ["stem", "sum"]
    assert residual.readers == ("expand", "last")
    assert residual.limit == np.inf
    assert found["expand",].limit == found["deep",].limit == 6


def test_it_computes_the_same_and_int8_errs_less() -> None:
    model, x = blocks(), inputs()
    onnx.checker.check_model(model)
    seen = channels(model, read_by_convolutions(model), [x[:6], x[6:]])
    even, told = equalised(model, seen, CPU)
    exact = run(model, x)
    np.testing.assert_allclose(run(even, x), exact, atol=1e-4 * np.abs(exact).max())
    again = channels(even, read_by_convolutions(even), [x])
    for name, of in told.items():
        np.testing.assert_allclose(of.peak_C, again[name].peak_C, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(of.mean_C, again[name].mean_C, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(of.square_C, again[name].square_C, rtol=1e-3, atol=1e-5)
    noise, less = (np.square(run(in_int8(m, x), x) - exact).mean() for m in (model, even))
    assert less < noise / 2


def test_parameters_that_two_layers_share_stay_as_they_are() -> None:
    model = blocks()
    del model.graph.node[-1:]
    model.graph.node.append(
        helper.make_node("Conv", ["sum", "base.expand.weight", "base.expand.bias"], ["last"])
    )
    touched = {output for s in streams(model) for output in (*s.writers, *s.readers)}
    assert touched == {"deep", "project"}


@pytest.mark.parametrize("layer", ["stem", "deep", "project"])
def test_biases_take_back_the_mean_that_rounded_weights_shift(layer: str) -> None:
    model, x = blocks(), inputs()
    scheme = dataclasses.replace(CPU, pairs=True)
    seen = channels(model, read_by_convolutions(model), [x])
    kept = [name for name in ("stem", "expand", "deep", "project", "last") if name != layer]
    corrected = bias_corrected(model, seen, scheme, kept)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    after = {i.name: numpy_helper.to_array(i) for i in corrected.graph.initializer}
    assert {name for name in stored if not np.array_equal(stored[name], after[name])} == {
        f"base.{layer}.bias"
    }
    weights = stored[f"base.{layer}.weight"]
    values, scale_O = quantised_weights(weights, pairs=layer != "deep")
    node = next(node for node in model.graph.node if node.output[0] == layer)
    mean_C = seen[node.input[0]].mean_C
    for o in range(len(weights)):
        channel = slice(o, o + 1) if layer == "deep" else slice(None)
        shift = sum(
            float((w - v * scale_O[o]).sum()) * float(mean)
            for w, v, mean in zip(weights[o], values[o], mean_C[channel], strict=True)
        )
        name = f"base.{layer}.bias"
        assert after[name][o] - stored[name][o] == pytest.approx(shift, abs=1e-5)
