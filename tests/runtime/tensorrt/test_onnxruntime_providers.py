"""CUDA and TensorRT inside ONNX Runtime: what they are told, and what is said without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from sa_runtime.errors import InputError, RunnerError
from sa_runtime.runners import onnxruntime as module
from sa_runtime.runners.onnxruntime import OnnxRuntimeRunner


class Session:
    """Records what a session is made with; falls back to the processor as ONNX Runtime does."""

    made: list[tuple[str, dict[str, str]]]

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        Session.made = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that offers NVIDIA's providers and then cannot start them."""
    names = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU")]
    fields = {name: getattr(onnxruntime, name) for name in ("SessionOptions", "__version__")}
    fake = SimpleNamespace(
        **fields,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        InferenceSession=Session,
        get_available_providers=lambda: names,
        preload_dlls=lambda: print("Failed to load libcublas.so.13"),
    )
    monkeypatch.setattr(module, "_package", lambda: fake)


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize(
    ("precision", "device", "cache", "told"),
    [
        ("fp32", "cuda:1", None, ("CUDAExecutionProvider", {"device_id": "1"})),
        ("fp32", "tensorrt", None, ("TensorrtExecutionProvider", {})),
        (
            "fp16",
            "tensorrt:1",
            "engines",
            (
                "TensorrtExecutionProvider",
                {
                    "device_id": "1",
                    "trt_fp16_enable": "True",
                    "trt_engine_cache_enable": "True",
                    "trt_engine_cache_path": "engines",
                    "trt_timing_cache_enable": "True",
                    "trt_timing_cache_path": "engines",
                },
            ),
        ),
        ("int8", "tensorrt", None, ("TensorrtExecutionProvider", {"trt_int8_enable": "True"})),
    ],
)
def test_providers_get_the_graphs_precision_and_the_cache(
    exported_models: dict[str, Path],
    precision: str,
    device: str,
    cache: str | None,
    told: tuple[str, dict[str, str]],
) -> None:
    text = f"{told[0]} could not start and ONNX Runtime fell back .* `sa-deploy doctor`"
    with pytest.raises(RunnerError, match=text):
        OnnxRuntimeRunner(exported_models[precision], device=device, cache=cache)
    assert Session.made == [told]


@pytest.mark.usefixtures("gpu_build")
def test_what_the_caller_says_wins(exported_models: dict[str, Path]) -> None:
    given = {"trt_fp16_enable": "False", "trt_max_workspace_size": "1000"}
    with pytest.raises(RunnerError):
        OnnxRuntimeRunner(exported_models["fp16"], device="tensorrt", provider_options=given)
    assert Session.made == [("TensorrtExecutionProvider", given)]


@pytest.mark.usefixtures("gpu_build")
def test_nvidias_libraries_are_looked_for_where_pip_puts_them(
    exported_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunnerError):
        OnnxRuntimeRunner(exported_models["fp32"], device="cuda")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "Failed to load libcublas.so.13\n")


def test_a_build_for_processors_says_what_to_install(exported_models: dict[str, Path]) -> None:
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has TensorRT")
    with pytest.raises(InputError, match=r"offers .*CPUExecutionProvider; .*sa-deploy\[gpu\]"):
        OnnxRuntimeRunner(exported_models["fp32"], device="tensorrt")
