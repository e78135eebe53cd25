"""A deserialised engine and the slots that batches take through it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import RunnerError
from sa_runtime.system.files import atomic_path
from sa_runtime.tensorrt.device import Bytes, CudaError, Device, unless_lost
from sa_runtime.tensorrt.flavour import Flavour, make_logger
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.sidecar import EngineInfo

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class Engine:
    """An engine in device memory.

    Args:
        path: of the file, for messages.
        flavour: the TensorRT that runs it.
        trt_engine: TensorRT's object.
        keep: objects of TensorRT that must live as long, for example its runtime.
        jit_cache: file of kernels that TensorRT-RTX compiled on this GPU; ``None`` for none.
    """

    def __init__(
        self,
        path: Path,
        flavour: Flavour,
        trt_engine: Any,
        keep: Sequence[Any],
        errors: list[str],
        jit_cache: Path | None,
    ) -> None:
        self.path = path
        self.flavour = flavour
        self.errors = errors
        self._engine = trt_engine
        self._keep = list(keep)
        self._jit_cache = jit_cache
        self._jit: Any = None
        self._config: Any = None
        if jit_cache is not None:
            self._config = self._runtime_config(jit_cache)

    def context(self) -> Any:
        """A new execution context.

        Raises:
            RunnerError: TensorRT gave none, most often because memory is short.
        """
        engine = self._engine
        context = (
            engine.create_execution_context()
            if self._config is None
            else engine.create_execution_context(self._config)
        )
        if context is None:
            raise RunnerError(
                f"{self.path}: TensorRT gave no execution context: {self.last_errors()}; free "
                "memory on the GPU, or open the engine with streams=1"
            )
        return context

    def tensors(self) -> dict[str, tuple[bool, str, tuple[int, ...]]]:
        """Inputs and outputs by name: whether it is an input, its type, its shape (-1 dynamic)."""
        engine, found = self._engine, {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name).name
            shape = tuple(int(size) for size in engine.get_tensor_shape(name))
            if -1 in shape[1:]:
                raise RunnerError(
                    f"{self.path}: {name} has shape {shape}, expected only the batch to be dynamic"
                )
            is_input = engine.get_tensor_mode(name) == self.flavour.trt.TensorIOMode.INPUT
            found[name] = (is_input, _TYPES.get(kind, kind), shape)
        return found

    def signature(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape without the batch of every input and output."""
        return {name: (kind, shape[1:]) for name, (_, kind, shape) in self.tensors().items()}

    def last_errors(self) -> str:
        """What TensorRT's log said last."""
        return "; ".join(self.errors[-3:]) or "TensorRT gave no reason"

    def close(self) -> None:
        """Free the engine; contexts must be gone."""
        if self._jit_cache is not None and self._jit is not None:
            blob = bytes(self._jit.serialize())
            # The folder may be read-only; the next start then compiles again.
            with contextlib.suppress(OSError), atomic_path(self._jit_cache) as temporary:
                temporary.write_bytes(blob)
        self._jit = self._config = self._engine = None
        self._keep.clear()

    def _runtime_config(self, jit_cache: Path) -> Any:
        """TensorRT-RTX compiles at first use: keep what it compiled, and let it use graphs."""
        config = self._engine.create_runtime_config()
        self._jit = config.create_runtime_cache()
        if jit_cache.is_file():
            self._jit.deserialize(jit_cache.read_bytes())
        config.set_runtime_cache(self._jit)
        config.cuda_graph_strategy = self.flavour.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config


def load_engine(path: Path, content: bytes, info: EngineInfo, flavour: Flavour) -> Engine:
    """Deserialise an engine; the GPU's context must be current.

    Raises:
        RunnerError: TensorRT refuses it; the message says why.
    """
    trt, errors = flavour.trt, []

    def sink(severity: str, message: str) -> None:
        if severity in ("error", "internal_error"):
            errors.append(" ".join(message.split()))

    logger = make_logger(flavour, sink)
    runtime = trt.Runtime(logger)
    if info.options.version_compat:
        # Such engines carry TensorRT's lean runtime as code; ours are our own.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        reason = "; ".join(errors[-3:]) or "TensorRT gave no reason"
        raise RunnerError(
            f"{path}: TensorRT {flavour.version} cannot load it: {reason}; build it again on this "
            "machine: sa-deploy build MODEL.onnx"
        )
    if info.options.strip:
        _refit(path, engine, info, flavour, logger, errors)
    jit_cache = path.with_name(path.name + ".jit") if flavour.rtx else None
    return Engine(path, flavour, engine, (runtime, logger), errors, jit_cache)


def _refit(
    path: Path, engine: Any, info: EngineInfo, flavour: Flavour, logger: Any, errors: list[str]
) -> None:
    """Put the weights of the ONNX file beside a stripped engine back into it."""
    weights = path.with_suffix(".onnx")
    if not weights.is_file():
        raise RunnerError(
            f"{path}: it was built with `strip=True` and takes its weights from {weights}, which "
            "is missing; put the ONNX file there, or build without it"
        )
    if read_graph(weights).sha256 != info.onnx_sha256:
        raise RunnerError(
            f"{path}: {weights} is not the ONNX file it was built from; put that one there, or "
            f"build it again: `sa-deploy build {weights} --strip`"
        )
    refitter = flavour.trt.Refitter(engine, logger)
    parser = flavour.trt.OnnxParserRefitter(refitter, logger)
    if not (parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine()):
        reason = "; ".join(errors[-3:]) or "TensorRT gave no reason"
        raise RunnerError(f"{path}: its weights cannot be taken from {weights}: {reason}")


def bucket(count: int, least: int, most: int) -> int:
    """The batch size that ``count`` images are computed at.

    Four sizes an octave: few graphs serve every batch, and less than a quarter of the work is
    thrown away.

    >>> [bucket(n, 1, 64) for n in (1, 3, 7, 9, 17, 33, 61)]
    [1, 3, 7, 10, 20, 40, 64]
    >>> bucket(2, 4, 6), bucket(6, 4, 6)
    (4, 6)
    """
    grain = max(1, 2 ** (math.floor(math.log2(count)) - 2)) if count else 1
    return max(least, min(most, -(-count // grain) * grain))


class ExecutionSlot:
    """Memory, an execution context and a stream of an engine: what one batch at a time runs in.

    One thread at a time uses it; slots of one engine are used side by side, and made one by one.

    Args:
        device: current while the slot is made, used and closed.
        engine: the engine.
        contract: says which tensor goes in and which comes out.
        info: the engine's sidecar.
        graphs: record and replay CUDA graphs.
    """

    def __init__(
        self, device: Device, engine: Engine, contract: Contract, info: EngineInfo, *, graphs: bool
    ) -> None:
        self._device = device
        self._engine = engine
        self._profile = info.options.profile
        # TensorRT-RTX records graphs itself.
        self._graphs_wanted = graphs and not engine.flavour.rtx
        self._graphs: dict[int, int] = {}
        self._pointers: dict[str, int] = {}
        self._pinned: list[Bytes] = []
        self._stream = 0
        self._context: Any = None
        self._shape: tuple[int, ...] = ()
        self._input, self._output = contract.input.name, contract.output.name
        try:
            self._stream = device.stream()
            for name, (_, kind, shape) in engine.tensors().items():
                size = math.prod(shape[1:]) * self._profile.max * np.dtype(kind).itemsize
                self._pointers[name] = device.allocate(size)
                if name == self._input:
                    self._host_in = self._host(size, kind, shape)
                elif name == self._output:
                    self._host_out = self._host(size, kind, shape)
            self._context = engine.context()
            for name, pointer in self._pointers.items():
                self._context.set_tensor_address(name, pointer)
        except BaseException:
            self.close()
            raise

    def submit(self, inputs: NDArray[np.generic]) -> None:
        """Start a batch of at most the profile's largest size; returns before it is done."""
        count = len(inputs)
        size = bucket(count, self._profile.min, self._profile.max)
        self._host_in[:count] = inputs
        if not self._graphs_wanted:
            self._enqueue(size)
            return
        if size not in self._graphs and not self._record(size):
            return
        self._device.launch(self._graphs[size], self._stream)

    def result(self, count: int) -> NDArray[np.generic]:
        """Wait for the batch; its first ``count`` rows, (count, D)."""
        if count:
            self._device.synchronize(self._stream)
        return self._host_out[:count].copy()

    def close(self) -> None:
        """Free everything once it is idle; closing twice is allowed."""
        with unless_lost():
            self._free()
        self._context = None

    def _free(self) -> None:
        device = self._device
        if self._stream:
            device.synchronize(self._stream)
        for graph in self._graphs.values():
            device.free_graph(graph)
        self._graphs.clear()
        self._context = None
        for pointer in self._pointers.values():
            device.free(pointer)
        self._pointers.clear()
        for array in self._pinned:
            device.free_pinned(array)
        self._pinned.clear()
        if self._stream:
            device.free_stream(self._stream)
            self._stream = 0

    def _host(self, size: int, kind: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        raw = self._device.pinned(size)
        raw[:] = 0
        self._pinned.append(raw)
        array: NDArray[np.generic] = raw.view(kind).reshape(self._profile.max, *shape[1:])
        return array

    def _enqueue(self, size: int) -> None:
        """Copy in, compute, copy out, all in the stream's order."""
        device, stream = self._device, self._stream
        source = self._bytes(self._host_in, size)
        device.upload(self._pointers[self._input], source, stream)
        shape = (size, *self._host_in.shape[1:])
        if shape != self._shape:
            if not self._context.set_input_shape(self._input, shape):
                raise RunnerError(
                    f"{self._engine.path}: TensorRT refuses a batch of {size}: "
                    f"{self._engine.last_errors()}"
                )
            self._shape = shape
        if not self._context.execute_async_v3(stream):
            raise RunnerError(
                f"{self._engine.path}: TensorRT failed on a batch of {size}: "
                f"{self._engine.last_errors()}"
            )
        device.download(self._bytes(self._host_out, size), self._pointers[self._output], stream)

    def _record(self, size: int) -> bool:
        """Record the graph of one batch size; the batch at hand is computed on the way.

        Returns:
            Whether the graph is there and still has to be launched. Where an engine cannot be
            recorded the batch was enqueued instead, and so will be all that follow.
        """
        device, stream = self._device, self._stream
        # TensorRT sets a new shape up while it is first enqueued, which may not be recorded.
        self._enqueue(size)
        device.synchronize(stream)
        device.begin_capture(stream)
        try:
            self._enqueue(size)
        except RunnerError:
            with contextlib.suppress(CudaError):
                device.free_graph(device.end_capture(stream))
            self._graphs_wanted = False
            self._enqueue(size)
            return False
        try:
            self._graphs[size] = device.end_capture(stream)
        except CudaError as exc:
            if exc.sticky:
                raise
            self._graphs_wanted = False
            self._enqueue(size)
            return False
        return True

    def _bytes(self, array: NDArray[np.generic], count: int) -> Bytes:
        flat: Bytes = array[:count].reshape(-1).view(np.uint8)
        return flat
