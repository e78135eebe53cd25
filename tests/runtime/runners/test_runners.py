from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.canary import least_cosine
from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.runners.base import BaseRunner, Runner
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.table import RUNNERS, runner_class
from tests.processor import HAS_BF16, needs_bf16

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)

# artefact, runtime, options, precision it must say it computes in, least cosine to the network
CASES: list[Any] = [
    ("onnx", "onnxruntime", {}, "fp32", 0.999999),
    ("onnx", "onnxruntime", {"graph": "none", "threads": 1, "arena": False}, "fp32", 0.999999),
    ("onnx", "openvino", {}, "fp32", 0.999999),
    pytest.param("onnx", "openvino", {"precision": "bf16"}, "bf16", 0.9995, marks=needs_bf16),
    ("onnx", "openvino", {"hint": "throughput", "threads": 2}, "fp32", 0.999999),
    ("fixed", "onnxruntime", {}, "fp32", 0.999999),
    ("fixed", "openvino", {}, "fp32", 0.999999),
    ("bf16", "openvino", {}, "bf16" if HAS_BF16 else "fp32", 0.9995),
    ("openvino", "openvino", {}, "fp32", 0.999999),
    ("torchscript", "torchscript", {}, "fp32", 0.999999),
    ("torch-export", "torch-export", {}, "fp32", 0.999999),
    ("torch", "torch", {}, "fp32", 0.999999),
    ("torch", "torch", {"precision": "bf16", "channels_last": True}, "bf16", 0.9995),
]
ELSEWHERE = {"tensorrt"}
"""Runtimes that a machine may lack; their tests stand in tests/runtime/tensorrt."""
COUNTS = (1, 3, 4, 5, 9)
"""The artefacts take batches of at most 4."""


def case_id(case: Any) -> str:
    return "-".join(map(str, case)) if isinstance(case, dict) else str(case)


def test_every_runtime_of_the_table_is_among_the_cases() -> None:
    cases = {getattr(case, "values", case)[1] for case in CASES}
    assert cases | ELSEWHERE == set(RUNNERS)
    pytest.importorskip("torch")
    for name in RUNNERS:
        assert runner_class(name).name == name


@pytest.mark.parametrize(
    ("artefact", "runtime", "options", "precision", "least"), CASES, ids=case_id
)
def test_every_runtime_gives_the_networks_vectors_at_every_batch_size(
    tiny_artefacts: TinyArtefacts,
    artefact: str,
    runtime: str,
    options: dict[str, Any],
    precision: str,
    least: float,
) -> None:
    images = tiny_artefacts.crops(max(COUNTS))
    expected = tiny_artefacts.embed(images)
    with open_runner(tiny_artefacts.files[artefact], runtime, **options) as runner:
        assert isinstance(runner, Runner)
        assert (runner.name, runner.precision) == (runtime, precision)
        empty = runner.run(images[:0])
        assert empty.shape == (0, 1536)
        assert empty.dtype == np.float32
        for count in COUNTS:
            vectors = runner.run(images[:count])
            assert vectors.dtype == np.float32
            assert vectors.shape == (count, 1536)
            assert least_cosine(vectors, expected[:count]) > least, count
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        if least > 0.9999:
            np.testing.assert_allclose(vectors, expected[: max(COUNTS)], atol=2e-5)


STREAMED = [("onnx", "onnxruntime"), ("onnx", "openvino"), ("fixed", "openvino")]


@pytest.mark.parametrize(("artefact", "runtime"), STREAMED)
def test_a_stream_gives_each_batch_its_own_vectors_in_order(
    tiny_artefacts: TinyArtefacts, artefact: str, runtime: str
) -> None:
    sizes = [2, 4, 1, 0, 9, 3, 4, 4, 4, 2]
    batches = [tiny_artefacts.crops(size, seed=i) for i, size in enumerate(sizes)]
    with open_runner(tiny_artefacts.files[artefact], runtime) as runner:
        results = list(runner.run_stream(iter(batches)))
        again = list(runner.run_stream(batches))
    assert [len(result) for result in results] == sizes
    for batch, result, second in zip(batches, results, again, strict=True):
        np.testing.assert_allclose(result, tiny_artefacts.embed(batch), atol=2e-5)
        np.testing.assert_allclose(second, result, atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_buffer_may_be_reused_once_its_result_came(
    tiny_artefacts: TinyArtefacts, runtime: str
) -> None:
    batches = [tiny_artefacts.crops(4, seed=i) for i in range(12)]
    free: list[Images] = []
    lent: list[Images] = []

    def reused() -> Iterator[Images]:
        for batch in batches:
            buffer = free.pop() if free else np.empty_like(batch)
            buffer[:] = batch
            lent.append(buffer)
            yield buffer

    results = []
    with open_runner(tiny_artefacts.files["onnx"], runtime) as runner:
        expected = [runner.run(batch) for batch in batches]
        for result in runner.run_stream(reused()):
            buffer = lent.pop(0)
            buffer[:] = 255
            free.append(buffer)
            results.append(result)
    assert len(free) < len(batches)
    for result, vectors in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, vectors, atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_results_stay_when_the_next_batch_runs(tiny_artefacts: TinyArtefacts, runtime: str) -> None:
    with open_runner(tiny_artefacts.files["onnx"], runtime) as runner:
        first = runner.run(tiny_artefacts.crops(2, seed=1))
        kept = first.copy()
        runner.run(tiny_artefacts.crops(2, seed=2))
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_stream_that_is_left_early_leaves_the_runner_usable(
    tiny_artefacts: TinyArtefacts, runtime: str
) -> None:
    images = tiny_artefacts.crops(3)
    with open_runner(tiny_artefacts.files["onnx"], runtime) as runner:
        for _ in runner.run_stream([images] * 6):
            break

        def failing() -> Iterator[Images]:
            yield images
            yield images
            raise OSError("the camera is gone")

        with pytest.raises(OSError, match="the camera is gone"):
            list(runner.run_stream(failing()))
        with pytest.raises(InputError, match=r"\(3, 128, 63, 3\)"):
            list(runner.run_stream([images, images[:, :, :63]]))
        np.testing.assert_allclose(runner.run(images), tiny_artefacts.embed(images), atol=2e-5)


OPENED = [("onnx", "onnxruntime"), ("onnx", "openvino"), ("torchscript", "torchscript")]


@pytest.mark.parametrize(("artefact", "runtime"), OPENED)
def test_other_arrays_and_a_closed_runner_are_refused(
    tiny_artefacts: TinyArtefacts, artefact: str, runtime: str
) -> None:
    images = tiny_artefacts.crops(2)
    runner = open_runner(tiny_artefacts.files[artefact], runtime)
    for wrong, came in (
        (images[0], r"\(128, 64, 3\) uint8"),
        (images.transpose(0, 3, 1, 2), r"\(2, 3, 128, 64\) uint8"),
        (images.astype(np.float32), r"\(2, 128, 64, 3\) float32"),
        (images[..., :1], r"\(2, 128, 64, 1\) uint8"),
    ):
        with pytest.raises(
            InputError,
            match=rf"images of shape {came}, expected \(N, 128, 64, 3\) uint8 BGR; cut crops with",
        ):
            runner.run(wrong)  # type: ignore[arg-type]
    views = runner.run(images[::-1, :, ::-1])
    np.testing.assert_allclose(views, runner.run(images[::-1, :, ::-1].copy()), atol=1e-6)
    runner.close()
    runner.close()
    with pytest.raises(RunnerError, match="the runner is closed; open the model again"):
        runner.run(images)
    with pytest.raises(RunnerError, match="the runner is closed"):
        list(runner.run_stream([images]))


@pytest.mark.parametrize(
    ("artefact", "runtime"),
    [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")],
)
def test_an_array_that_may_not_be_written_is_read(
    tiny_artefacts: TinyArtefacts, artefact: str, runtime: str
) -> None:
    images = tiny_artefacts.crops(2)
    expected = tiny_artefacts.embed(images)
    images.flags.writeable = False
    with open_runner(tiny_artefacts.files[artefact], runtime) as runner:
        np.testing.assert_allclose(runner.run(images), expected, atol=2e-5)


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def write_classic_onnx(path: Path) -> NDArray[np.float32]:
    """Float NCHW RGB that the caller normalises, as other projects export; returns the weights."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(3).normal(size=(3, 5)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["output"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "classic",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 5])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    contract = Contract(
        input=InputSpec(
            name="input", layout="nchw", dtype="float32", colour="rgb", height=8, width=4,
            mean=MEAN, std=STD,
        ),
        output=OutputSpec(name="output", embedding="global", dim=5),
        weights_sha256="0",
        space="classic",
    )  # fmt: skip
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    save(model, str(path))
    return weights


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_classic_float_input_is_made_from_the_same_crops(tmp_path: Path, runtime: str) -> None:
    weights = write_classic_onnx(tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 4, 3), dtype=np.uint8)
    means_rgb = images.astype(np.float64).mean(axis=(1, 2))[:, ::-1] / 255
    raw = ((means_rgb - MEAN) / STD) @ weights.astype(np.float64)
    with open_runner(tmp_path / "model.onnx", runtime) as runner:
        vectors = runner.run(images)
    np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)


class _Invented(BaseRunner):
    """Returns what a test wants of it."""

    name = "invented"

    def __init__(self, output: Embeddings) -> None:
        contract = Contract(
            input=InputSpec(height=2, width=1),
            output=OutputSpec(dim=3),
            weights_sha256="0",
            space="s",
        )
        super().__init__(Path("model.x"), contract)
        self._output = output

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return self._output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.zeros((2, 4), np.float32), r"model\.x: invented gave \(2, 4\), expected \(2, 3\)"),
        (np.zeros((1, 3), np.float32), r"gave \(1, 3\), expected \(2, 3\)"),
        (
            np.array([[1, 0, 0], [0, np.nan, 0]], np.float32),
            r"not finite \(row 1\); export the mod",
        ),
        (np.array([[1, 0, np.inf], [0, 1, 0]], np.float32), r"not finite \(row 0\)"),
    ],
)
def test_vectors_of_another_shape_or_not_finite_are_an_error(
    output: Embeddings, message: str
) -> None:
    with _Invented(output) as runner, pytest.raises(RunnerError, match=message):
        runner.run(np.zeros((2, 2, 1, 3), np.uint8))


def test_a_runner_says_what_it_runs_on(tiny_artefacts: TinyArtefacts) -> None:
    with open_runner(tiny_artefacts.files["onnx"], "onnxruntime", threads=1) as runner:
        assert runner.details["providers"] == "CPUExecutionProvider"
        assert runner.details["threads"] == "1"
        assert runner.label == "onnxruntime fp32"
    with open_runner(tiny_artefacts.files["onnx"], "openvino", threads=1) as runner:
        assert runner.details["inference_num_threads"] == "1"
        assert (runner.device, runner.details["hint"]) == ("cpu", "latency")
    with open_runner(tiny_artefacts.files["bf16"], "openvino", precision="fp32") as runner:
        assert runner.label == "openvino fp32"
