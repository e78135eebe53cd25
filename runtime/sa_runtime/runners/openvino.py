"""ONNX files and OpenVINO IR on OpenVINO: processors, and Intel GPUs and NPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import RunnerError, bad_value
from sa_runtime.runners.base import Options, contract_for
from sa_runtime.runners.openvino_graph import read_openvino_model
from sa_runtime.runners.overlap import OverlappingRunner, Pool
from sa_runtime.system.cache import cache_dir
from sa_runtime.system.extras import require

_log = logging.getLogger(__name__)

Hint = Literal["latency", "throughput"]
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_TYPES = {"u8": "uint8", "f32": "float32"}


class _InFlight(NamedTuple):
    request: Any
    inputs: NDArray[np.generic]  # OpenVINO reads it where it lies: it must outlive the request


class OpenVinoRunner(OverlappingRunner[_InFlight]):
    """An ONNX or OpenVINO IR artefact on OpenVINO.

    Every call, and every batch of a stream, has an infer request of its own while it lasts, so
    that any number of threads may call it. As many requests are kept as were in use at once.

    Args:
        path: the ``.onnx`` or ``.xml`` file.
        embedding: which of the artefact's embeddings; its first by default.
        device: as OpenVINO names it, in any case: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``, ``AUTO``.
        precision: what layers that are not int8 compute in: ``fp32``, ``bf16`` or ``fp16``. The
            artefact's own by default, fp32 where it is int8 or the device has it not; ``auto``
            lowers it where that is faster and keeps the vectors.
        hint: ``latency`` gives each batch all cores, ``throughput`` runs several batches at once on
            a few cores each, which pays on machines of many cores and in :meth:`run_stream` only.
        streams: batches at once, 0 for the hint's choice.
        threads: cores, 0 for all.
        pinning: bind threads to cores; ``None`` for OpenVINO's choice.
        cache: keep compiled models: a folder, or true for ``openvino`` in the project's cache. Off
            by default on a processor, where compiling takes a tenth of a second; on elsewhere.
        properties: further ones by OpenVINO's names, such as ``MODEL_DISTRIBUTION_POLICY``.

    Raises:
        MissingPackageError: openvino, or for an ONNX file onnx, is not installed.
        InputError: a file of another format, or a device or precision this machine has not.
        RunnerError: the file cannot be read or compiled.
        ContractError: it carries no contract, or its graph disagrees with it.
    """

    name: ClassVar[str] = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        embedding: str | None = None,
        device: str = "CPU",
        precision: str | None = None,
        hint: Hint = "latency",
        streams: int = 0,
        threads: int = 0,
        pinning: bool | None = None,
        cache: Path | str | bool | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        ov = _package()
        contract = contract_for(path, embedding)
        core = ov.Core()
        device = _device(core, device)
        chosen = precision or _own_precision(core, device, contract)
        super().__init__(path, contract, precision=_label(contract, chosen))
        if hint not in get_args(Hint):
            raise bad_value("hint", hint, f"expected one of {', '.join(get_args(Hint))}")
        if chosen not in _PRECISIONS:
            raise bad_value("precision", chosen, f"expected one of {', '.join(_PRECISIONS)}")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": hint.upper(),
            "INFERENCE_PRECISION_HINT": _PRECISIONS[chosen],
        }
        if streams:
            settings["NUM_STREAMS"] = str(streams)
        if device == "CPU" and threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        if device == "CPU" and pinning is not None:
            settings["ENABLE_CPU_PINNING"] = pinning
        if cache is None:
            cache = device != "CPU"
        if cache:
            settings["CACHE_DIR"] = str(cache_dir() / "openvino" if cache is True else cache)
        model = read_openvino_model(ov, core, path)
        self._check_graph(
            {
                name: (_TYPES.get(type_name, type_name), _tail(port.partial_shape))
                for port in (*model.inputs, *model.outputs)
                for type_name in [port.element_type.get_type_name()]
                for name in port.names
            }
        )
        try:
            self._compiled = core.compile_model(model, device, {**settings, **(properties or {})})
        except RuntimeError as exc:
            raise RunnerError(f"{path}: OpenVINO cannot compile it for {device}: {exc}") from exc
        self._check_precision(chosen, device)
        self.device = device.lower()
        self.details = {"version": str(ov.__version__).split("-")[0], "hint": hint}
        for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"):
            if key in self._compiled.get_property("SUPPORTED_PROPERTIES"):
                self.details[key.lower()] = str(self._compiled.get_property(key))
        if cache:
            cached = bool(self._compiled.get_property("LOADED_FROM_CACHE"))
            self.details["from_cache"] = str(cached)
            how = "is read from" if cached else "was compiled and is kept in"
            _log.info("%s: the compiled model %s %s", path, how, settings["CACHE_DIR"])
        self.depth = max(2, int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))
        self._requests: Pool[Any] = Pool(self._compiled.create_infer_request)

    @classmethod
    def variants(cls, path: Path) -> tuple[Options, ...]:
        """The artefact's own precision, and those below fp32 that the processor computes in."""
        core = _package().Core()
        own = _own_precision(core, "CPU", read_contract(path))
        lowered = [p for p in ("bf16", "fp16") if own == "fp32" and _computes(core, "CPU", p)]
        return tuple({"precision": precision} for precision in (own, *lowered))

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        request = self._requests.take()
        try:
            with self._named(inputs) as named:
                request.infer(named, share_inputs=True)
            return self._output(request)
        finally:
            self._requests.give(request)

    def _start(self, inputs: NDArray[np.generic]) -> _InFlight:
        request = self._requests.take()
        try:
            with self._named(inputs) as named:
                request.start_async(named, share_inputs=True)
        except BaseException:
            self._requests.give(request)
            raise
        return _InFlight(request, inputs)

    def _finish(self, carrier: _InFlight) -> NDArray[np.generic]:
        request, inputs = carrier
        try:
            with self._named(inputs):
                request.wait()
            return self._output(request)
        finally:
            self._requests.give(request)

    def _abandon(self, carrier: _InFlight) -> None:
        with suppress(RuntimeError):
            carrier.request.wait()  # nothing may read the caller's arrays after that
        self._requests.give(carrier.request)

    def _output(self, request: Any) -> NDArray[np.generic]:
        # A copy, because the request's own memory is overwritten by its next batch.
        output: NDArray[np.generic] = request.get_tensor(self.contract.output.name).data.copy()
        return output

    @contextmanager
    def _named(self, inputs: NDArray[np.generic]) -> Iterator[dict[str, NDArray[np.generic]]]:
        """The inputs by name; within it OpenVINO's errors become ours."""
        try:
            yield {self.contract.input.name: inputs}
        except RuntimeError as exc:
            raise RunnerError(f"{self.path}: OpenVINO failed on {inputs.shape}: {exc}") from exc

    def _check_precision(self, chosen: str, device: str) -> None:
        """OpenVINO falls back silently; a measurement must not carry the wrong name."""
        if "INFERENCE_PRECISION_HINT" not in self._compiled.get_property("SUPPORTED_PROPERTIES"):
            return
        kind = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        got = kind.to_string() if hasattr(kind, "to_string") else str(kind)
        short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}.get(got, got)
        if short != _PRECISIONS[chosen]:
            raise bad_value(
                "precision",
                chosen,
                f"{device} computes this model in {short}; choose another precision or leave it "
                "to the artefact",
            )

    def _release(self) -> None:
        self._requests.empty()
        del self._compiled


def _own_precision(core: Any, device: str, contract: Contract) -> str:
    """What computes an artefact without loss; int8 layers are int8 beside it."""
    stated = contract.precision
    return stated if stated in ("bf16", "fp16") and _computes(core, device, stated) else "fp32"


def _computes(core: Any, device: str, precision: str) -> bool:
    try:
        return precision.upper() in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError:  # devices composed of others, such as AUTO, do not say
        return False


def _label(contract: Contract, precision: str) -> str:
    if contract.precision != "int8":
        return precision
    return "int8" if precision == "fp32" else f"int8+{precision}"


def _package() -> ModuleType:
    return require("openvino", extra="cpu", purpose="runtime openvino")


def _device(core: Any, wanted: str) -> str:
    device = wanted.upper()
    found = core.available_devices
    composed = device.partition(":")[0] in ("AUTO", "HETERO", "MULTI", "BATCH")
    if not composed and device not in found and f"{device}.0" not in found:
        raise bad_value("device", wanted, f"OpenVINO finds {', '.join(found)} on this machine")
    return device


def _tail(shape: Any) -> tuple[object, ...]:
    return tuple(d.get_length() if d.is_static else str(d) for d in list(shape)[1:])
