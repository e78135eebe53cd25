"""ONNX files on ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError, RunnerError, bad_value
from sa_runtime.runners.base import BaseRunner, Options, contract_for
from sa_runtime.system.extras import require

GraphOptimization = Literal["none", "basic", "extended", "all"]
_LEVELS: dict[str, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Devices by name; a name that is none of these is taken as ONNX Runtime's own."""
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeRunner(BaseRunner):
    """An ONNX artefact on ONNX Runtime.

    Any number of threads may call it: they share its session, whose results are arrays of their
    own.

    Input arrays are read where they lie; binding outputs as well was measured and gains nothing
    on a processor (benchmarks/runtime_options.py), so that plain ``run`` it is.

    Args:
        path: the ``.onnx`` file.
        embedding: which of the artefact's embeddings; its first by default.
        threads: number of threads that compute one operator, 0 for one per core.
        graph: how far the graph is optimised while loading.
        arena: keep freed memory for the next batch; off, memory follows the batch size.
        spin: let idle threads wait in a loop: faster, but a core stays busy between batches.
        device: ``cpu``, ``cuda``, ``tensorrt``, or a provider by ONNX Runtime's name; an index
            follows a colon (``cuda:1``).
        provider_options: options of that provider, by ONNX Runtime's names.
        cache: folder for the engines that the device ``tensorrt`` builds.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        InputError: a file that is no ONNX model, or a device this build does not offer.
        RunnerError: the file cannot be loaded.
        ContractError: it carries no contract, or its graph disagrees with it.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        embedding: str | None = None,
        threads: int = 0,
        graph: GraphOptimization = "all",
        arena: bool = True,
        spin: bool = True,
        device: str = "cpu",
        provider_options: Mapping[str, str] | None = None,
        cache: Path | str | None = None,
    ) -> None:
        ort = _package()
        super().__init__(path, contract_for(path, embedding))
        if graph not in get_args(GraphOptimization):
            raise InputError(
                f"graph={graph!r}: expected one of {', '.join(get_args(GraphOptimization))}"
            )
        provider, given = _provider(ort, device, provider_options or {})
        if provider != _PROVIDERS["cpu"]:
            preload(ort)
        if provider == _PROVIDERS["tensorrt"]:
            given = {**_engine_options(self.contract.precision, cache), **given}
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[graph])
        options.enable_cpu_mem_arena = arena
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(str(path), options, providers=[(provider, given)])
        except Exception as exc:  # ORT raises a family of C++ mapped types without a common base
            raise RunnerError(f"{path}: ONNX Runtime cannot load it: {exc}") from exc
        self.device = device
        self.details = {
            "version": ort.__version__,
            "providers": ", ".join(session.get_providers()),
            "threads": str(threads or "all cores"),
            "graph": graph,
        }
        if session.get_providers()[0] != provider:
            raise RunnerError(
                f"{path}: {provider} could not start and ONNX Runtime fell back to "
                f"{session.get_providers()[0]}; look at `sa-deploy doctor`"
            )
        border = (*session.get_inputs(), *session.get_outputs())
        self._check_graph(
            {item.name: (_TYPES.get(item.type, item.type), item.shape[1:]) for item in border}
        )
        self._session = session

    @classmethod
    def variants(cls, path: Path) -> tuple[Options, ...]:
        """A GPU where this build has one, and the processor."""
        offered = _package().get_available_providers()
        return tuple({"device": d} for d in ("cuda", "cpu") if _PROVIDERS[d] in offered)

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        spec = self.contract
        try:
            output: NDArray[np.generic] = self._session.run(
                [spec.output.name], {spec.input.name: inputs}
            )[0]
        except Exception as exc:
            raise RunnerError(f"{self.path}: ONNX Runtime failed on {inputs.shape}: {exc}") from exc
        return output

    def _release(self) -> None:
        del self._session


def _package() -> ModuleType:
    return require("onnxruntime", extra="cpu", purpose="runtime onnxruntime")


def preload(ort: ModuleType) -> None:
    """Load NVIDIA's libraries where pip put them: ONNX Runtime's providers look elsewhere.

    Args:
        ort: the ``onnxruntime`` module; a build for processors loads nothing.
    """
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        # It prints what it misses, and stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    if "TensorrtExecutionProvider" in ort.get_available_providers():
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")


def _engine_options(precision: str, cache: Path | str | None) -> dict[str, str]:
    """Options of TensorRT inside ONNX Runtime: compute as the graph says, and what to keep.

    >>> _engine_options("fp16", None)
    {'trt_fp16_enable': 'True'}
    """
    options = {} if precision == "fp32" else {f"trt_{precision}_enable": "True"}
    if cache is not None:
        for kind in ("engine", "timing"):
            options[f"trt_{kind}_cache_enable"] = "True"
            options[f"trt_{kind}_cache_path"] = str(cache)
    return options


def _provider(
    ort: ModuleType, device: str, options: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Provider and its options of a device such as ``cuda:1``."""
    kind, _, index = device.partition(":")
    provider = _PROVIDERS.get(kind, kind)
    offered = ort.get_available_providers()
    if provider not in offered:
        raise bad_value(
            "device",
            device,
            f"this ONNX Runtime offers {', '.join(offered)}; for an NVIDIA GPU install: pip "
            "install 'sa-deploy[gpu]'",
        )
    return provider, {**({"device_id": index} if index else {}), **options}
