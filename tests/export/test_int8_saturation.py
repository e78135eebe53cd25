from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sa_export.quantize.scheme import SCHEMES, quantised_weights

SIZE = (8, 4)


def quantised_convolution(values: NDArray[np.int8], groups: int = 1) -> bytes:
    """A convolution of int8 weights with uint8 pixels, as Q/DQ nodes; all scales are 1."""
    outputs, inputs, kernel, _ = values.shape
    inputs *= groups
    constants: dict[str, NDArray[Any]] = {
        "one": np.array(1, np.float32), "zero": np.array(0, np.uint8), "values": values,
        "ones": np.ones(outputs, np.float32), "zeros": np.zeros(outputs, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "one", "zero"], ["x_dq"]),
        helper.make_node("DequantizeLinear", ["values", "ones", "zeros"], ["w_dq"], axis=0),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["y"], pads=[kernel // 2] * 4, group=groups),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, *SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, *SIZE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("inputs", "kernel"), [(64, 1), (64, 3), (3, 7)])
def test_no_sum_of_a_processor_saturates_at_the_brightest_input(inputs: int, kernel: int) -> None:
    """Without VNNI OpenVINO was off by half here, with weights up to 127."""
    rng = np.random.default_rng(0)
    shape = (32, inputs, kernel, kernel)
    weights = (rng.random(shape) * np.where(rng.random(shape) < 0.9, 1, -1)).astype(np.float32)
    values, _ = quantised_weights(weights, pairs=SCHEMES["cpu"].pairs)
    x = np.full((1, inputs, *SIZE), 255, np.float32)
    exact = torch.nn.functional.conv2d(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(values, dtype=torch.float64),
        padding=kernel // 2,
    ).numpy()
    core = openvino.Core()
    model = core.read_model(quantised_convolution(values))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(x)[0], exact, rtol=1e-6)


BRIGHTEST = """
import sys
import numpy as np, openvino
model, shape = sys.argv[1:]
core = openvino.Core()
compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(compiled(np.full(eval(shape), 255, np.float32))[0].max())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86 processors")
@pytest.mark.parametrize(("shape", "groups", "saturates"), [
    ((32, 64, 1, 1), 1, True), ((32, 1, 3, 3), 32, False)
])  # fmt: skip
def test_without_vnni_sums_saturate_but_for_depthwise_convolutions(
    tmp_path: Path, shape: tuple[int, ...], groups: int, saturates: bool
) -> None:
    """So these may keep all of -127..127. oneDNN is held to AVX2, in a process of its own."""
    model = tmp_path / "model.onnx"
    model.write_bytes(quantised_convolution(np.full(shape, 127, np.int8), groups))
    exact = 127 * 255 * int(np.prod(shape[1:]))
    given = (str(model), repr((1, shape[1] * groups, *SIZE)))
    done = subprocess.run(
        [sys.executable, "-c", BRIGHTEST, *given],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = float(done.stdout)
    assert found == pytest.approx(0.506 * exact if saturates else exact, rel=0.01)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), inputs=st.integers(1, 9), spread=st.floats(0.1, 3))
def test_neighbours_of_one_sign_stay_within_16_bits(seed: int, inputs: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal((4, inputs, 3, 3)) * np.exp(spread)).astype(np.float32)
    values, scale = quantised_weights(weights, pairs=True)
    assert np.abs(values).max() <= 127
    wide = values.astype(np.int64)
    even = wide[:, : inputs - inputs % 2].reshape(4, inputs // 2, 2, 3, 3)
    for sign in (1, -1):
        assert (255 * np.maximum(sign * even, 0).sum(axis=2) <= 32767).all()
        if inputs % 2:
            assert (255 * 2 * np.abs(wide) <= 32767).all()
    np.testing.assert_allclose(
        values * scale[:, None, None, None], weights, atol=0.5001 * scale.max()
    )
    assert (scale <= 2.0001 * np.abs(weights).max(axis=(1, 2, 3)) / 127).all()


def test_a_large_weight_beside_a_small_one_keeps_all_levels() -> None:
    weights = np.zeros((1, 4, 1, 1), np.float32)
    weights[0, :, 0, 0] = 1.27, -1.0, 0.6, 0.6
    values, _ = quantised_weights(weights, pairs=True)
    assert values.reshape(-1).tolist() == [127, -100, 60, 60]
    assert not SCHEMES["tensorrt"].pairs
