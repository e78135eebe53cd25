from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from sa_runtime.errors import RunnerError
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.openvino_graph import lift_reductions
from sa_runtime.system.cache import cache_dir
from tests.processor import needs_bf16

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)

CHANNELS = 16
ALONG: dict[str, Callable[..., NDArray[Any]]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "l1": lambda x, axis: np.abs(x).sum(axis=axis),
    "l2": lambda x, axis: np.sqrt(np.square(x).sum(axis=axis)),
}


def reduction_model(name: str, *, axis: int = 2, keep: bool) -> tuple[Any, NDArray[np.float32]]:
    """1x1 convolution, reduction over the three-dimensional map, then a factor per channel."""
    import openvino as ov
    import openvino.opset13 as ops

    weights = np.random.default_rng(0).normal(size=(CHANNELS, 3)).astype(np.float32)
    factor = np.linspace(1, 2, CHANNELS if axis != 1 else 6, dtype=np.float32)
    x = ops.parameter([-1, 3, 2, 3], np.float32, name="x")
    kernel = ops.constant(weights[:, :, None, None])
    y = ops.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    flat = ops.reshape(y, ops.constant(np.array([0, 0, -1])), True)
    reduced = getattr(ops, f"reduce_{name}")(flat, ops.constant(np.array([axis])), keep)
    column = factor[:, None] if keep and axis != 1 else factor
    result = ops.multiply(reduced, ops.constant(column[None]))
    return ov.Model([result], [x]), factor


def run(model: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(x)[0])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ALONG)
def test_a_reduction_over_three_dimensions_is_right_in_batches(name: str, keep: bool) -> None:
    import openvino as ov

    x = np.random.default_rng(1).normal(size=(5, 3, 2, 3)).astype(np.float32)
    model, factor = reduction_model(name, keep=keep)
    weights = np.random.default_rng(0).normal(size=(CHANNELS, 3))
    flat = np.einsum("oc,nchw->nohw", weights, x.astype(np.float64)).reshape(5, CHANNELS, -1)
    expected = ALONG[name](flat, axis=2) * factor
    assert lift_reductions(ov, model) == 1
    assert lift_reductions(ov, model) == 0
    np.testing.assert_allclose(run(model, x).reshape(5, CHANNELS), expected, rtol=1e-3, atol=1e-4)


def test_reductions_that_are_computed_right_are_left_alone() -> None:
    import openvino as ov

    x = np.random.default_rng(1).normal(size=(5, 3, 2, 3)).astype(np.float32)
    model, _ = reduction_model("mean", axis=1, keep=False)
    together = run(model, x)
    alone = np.concatenate([run(model, x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert lift_reductions(ov, model) == 0


def write_three_dimensional_onnx(path: Path) -> None:
    """A graph of another project that pools over (N, C, HW)."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)

    def initializer(name: str, values: NDArray[Any]) -> Any:
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "last"], ["pooled"], keepdims=0),
        helper.make_node("Mul", ["pooled", "gamma"], ["scaled"]),
        helper.make_node("Add", ["scaled", "beta"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["output"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", CHANNELS])],
        [
            initializer("kernel", rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32)),
            initializer("shape", np.array([0, 0, -1], np.int64)),
            initializer("last", np.array([2], np.int64)),
            initializer("gamma", np.linspace(1, 2, CHANNELS, dtype=np.float32)),
            initializer("beta", np.linspace(-1, 2, CHANNELS, dtype=np.float32)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    contract = Contract(
        input=InputSpec(name="input", layout="nchw", dtype="float32", height=8, width=4),
        output=OutputSpec(name="output", dim=CHANNELS),
        weights_sha256="0",
        space="pooled",
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    save(model, str(path))


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_a_crops_vector_does_not_depend_on_its_batch_mates(tmp_path: Path, precision: str) -> None:
    write_three_dimensional_onnx(tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 4, 3), dtype=np.uint8)
    with open_runner(tmp_path / "model.onnx", "openvino", precision=precision) as runner:
        together = runner.run(images)
        alone = np.concatenate([runner.run(images[i : i + 1]) for i in range(6)])
    with open_runner(tmp_path / "model.onnx", "onnxruntime") as runner:
        expected = runner.run(images)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, expected, atol=1e-5 if precision == "fp32" else 1e-2)


def test_compiled_models_are_kept_where_they_are_asked_to_be(
    tiny_artefacts: TinyArtefacts, tmp_path: Path
) -> None:
    model = tiny_artefacts.files["onnx"]
    images = tiny_artefacts.crops(2)
    with open_runner(model, "openvino") as runner:
        plain = runner.run(images)
    assert not (cache_dir() / "openvino").exists()
    loaded = []
    for _ in range(2):
        with open_runner(model, "openvino", cache=tmp_path) as runner:
            loaded.append(runner.details["from_cache"])
            np.testing.assert_allclose(runner.run(images), plain, atol=1e-6)
    assert loaded == ["False", "True"]
    assert list(tmp_path.glob("*.blob"))


def test_openvinos_own_properties_pass_through(tiny_artefacts: TinyArtefacts) -> None:
    model = tiny_artefacts.files["onnx"]
    with open_runner(
        model, "openvino", streams=2, pinning=False, properties={"SCHEDULING_CORE_TYPE": "ANY_CORE"}
    ) as runner:
        assert runner.details["num_streams"] == "2"
    with pytest.raises(RunnerError, match=r"model\.onnx: OpenVINO cannot compile it for CPU: "):
        open_runner(model, "openvino", properties={"NO_SUCH_PROPERTY": "1"})
