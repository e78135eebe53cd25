"""TensorRT and TensorRT-RTX engines.

Every batch goes through a lane: page-locked memory, device memory, an execution context
and a stream of its own. With two lanes one batch is copied while the other is computed.
Copies and computing of one batch size are recorded once as a CUDA graph and replayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import ContractError, InputError, RunnerError
from sa_runtime.runners.base import BaseRunner
from sa_runtime.system.gpus import Gpu, probe
from sa_runtime.tensorrt.device import CudaError, Device, cuda_index, open_device, unless_lost
from sa_runtime.tensorrt.engines import Workshop, cached_engine, default_timing_cache
from sa_runtime.tensorrt.flavour import (
    INSTALL,
    FlavourName,
    choose_flavour,
    load_flavour,
    rtx_obstacle,
)
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.lanes import Engine, Lane, load_engine
from sa_runtime.tensorrt.options import BuildOptions, profile_for
from sa_runtime.tensorrt.sidecar import (
    EngineInfo,
    engine_sha256,
    gpu_obstacle,
    read_sidecar,
    version_obstacle,
)


class _Flight(NamedTuple):
    """A chunk of a batch on its way through a lane."""

    lane: Lane
    rows: int
    last: bool


class TensorRTRunner(BaseRunner):
    """An engine, or an ONNX file whose engine is kept in a cache.

    Args:
        path: an ``.engine`` with its sidecar, or an ``.onnx`` file together with ``cache``.
        embedding: which of the artefact's embeddings; its first by default.
        cache: folder that keeps the engines of ONNX files, built where missing or stale.
        flavour: which TensorRT builds for the cache; what the machine has by default.
        streams: lanes, 1 or 2.
        graphs: replay CUDA graphs; off, every batch is enqueued layer by layer.
        device: ``cuda``, or ``cuda:1`` for another GPU than the first.
        binding: ``pycuda`` or ``cuda-bindings``; the first that is installed by default.

    Raises:
        InputError: an option out of its range, or an ONNX file without ``cache``.
        ContractError: no readable sidecar, or an engine that is not the one it describes.
        MissingPackageError: the TensorRT that built the engine, or a CUDA binding, is missing.
        RunnerError: this machine cannot run the engine; the message says why.
    """

    name: ClassVar[str] = "tensorrt"

    def __init__(
        self,
        path: Path,
        *,
        embedding: str | None = None,
        cache: Path | str | None = None,
        flavour: FlavourName | None = None,
        streams: int = 2,
        graphs: bool = True,
        device: str = "cuda",
        binding: str | None = None,
    ) -> None:
        if streams not in (1, 2):
            raise InputError(f"streams={streams}: expected 1 or 2")
        gpu = cuda_index(device)
        machine = probe()
        if path.suffix == ".onnx":
            path = _from_cache(path, cache, flavour)
        info = read_sidecar(path)
        if gpu >= len(machine.gpus):
            raise RunnerError(
                f"{path}: GPU {gpu} is not there ({machine.problem or len(machine.gpus)}); "
                "look at `sa-deploy doctor`"
            )
        installed = load_flavour(info.flavour)
        _require_runnable(path, info, installed.version, machine.gpus[gpu])
        content = path.read_bytes()
        if engine_sha256(content) != info.engine_sha256:
            raise ContractError(
                f"{path}: not the engine that {path.name}.json describes; copy both files again, "
                "or build it again: sa-deploy build MODEL.onnx"
            )
        contract = info.contract if embedding is None else info.contract.select(embedding)
        super().__init__(path, contract, precision=info.precision)
        self.info = info
        self._lanes: list[Lane] = []
        self._free: deque[Lane] = deque()
        self._engine: Engine | None = None
        self._device: Device = open_device(gpu, binding)
        self._broken = ""
        try:
            with self._device.active():
                self._engine = load_engine(path, content, info, installed)
                self._check_graph(self._engine.border())
                for _ in range(streams):
                    lane = Lane(self._device, self._engine, contract, info, graphs=graphs)
                    self._lanes.append(lane)
            self._free.extend(self._lanes)
        except BaseException:
            self.close()
            raise
        self.device = f"cuda:{gpu}"
        self.details = {
            "version": f"{info.flavour} {installed.version}",
            "gpu": machine.gpus[gpu].name,
            "binding": self._device.binding,
            "streams": str(streams),
            "graphs": "yes" if graphs else "no",
            "plugin": f"{info.plugin_nodes} nodes" if info.plugin_nodes else "no",
        }

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Embed batch after batch: while one is computed the next is copied.

        Raises:
            InputError: a batch of another shape or type.
            RunnerError: the GPU failed, or gave vectors that are not finite.
        """
        flying: deque[_Flight] = deque()
        parts: list[NDArray[np.generic]] = []

        def land() -> Embeddings | None:
            """Wait for the oldest chunk; a batch's vectors where it was its last one."""
            flight = flying.popleft()
            self._free.append(flight.lane)
            parts.append(self._result(flight.lane, flight.rows))
            return self._joined(parts) if flight.last else None

        try:
            for images in batches:
                self.check(images)
                step = self.max_batch or max(1, len(images))
                # An empty batch flies too, so that the order holds.
                for start in range(0, max(1, len(images)), step):
                    done = land() if flying and not self._free else None
                    chunk = images[start : start + step]
                    lane = self._take()
                    flying.append(_Flight(lane, len(chunk), start + step >= len(images)))
                    if len(chunk):
                        self._submit(lane, self._encode(chunk))
                    # Handed out only now: the GPU has work while the caller has the vectors.
                    if done is not None:
                        yield done
            while flying:
                done = land()
                if done is not None:
                    yield done
        finally:
            # Left early: what still flies has nobody who waits for it.
            self._free.extend(flight.lane for flight in flying)

    def _joined(self, parts: list[NDArray[np.generic]]) -> Embeddings:
        output = parts[0] if len(parts) == 1 else np.concatenate(parts)
        parts.clear()
        return self._checked(output, len(output))

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        lane = self._take()
        try:
            self._submit(lane, inputs)
            return self._result(lane, len(inputs))
        finally:
            self._free.appendleft(lane)

    def _take(self) -> Lane:
        """A lane whose last results are out.

        Raises:
            RunnerError: another ``run_stream`` of this runner has them all.
        """
        if not self._free:
            raise RunnerError(
                f"{self.path}: another run_stream has batches in flight; take its results first, "
                "or open the engine a second time"
            )
        return self._free.popleft()

    def _submit(self, lane: Lane, inputs: NDArray[np.generic]) -> None:
        self._guarded(lambda: lane.submit(inputs))

    def _result(self, lane: Lane, count: int) -> NDArray[np.generic]:
        output: NDArray[np.generic] = self._guarded(lambda: lane.result(count))
        return output

    def _guarded(self, work: Any) -> Any:
        """Do something with the context current; after a sticky error, nothing any more."""
        if self._broken:
            raise RunnerError(f"{self.path}: the GPU's context was lost earlier: {self._broken}")
        try:
            with self._device.active():
                return work()
        except CudaError as exc:
            if exc.sticky:
                self._broken = str(exc)
            raise

    def _release(self) -> None:
        with unless_lost(), self._device.active():
            for lane in self._lanes:
                lane.close()
            if self._engine is not None:
                self._engine.close()
        self._lanes.clear()
        self._free.clear()
        self._engine = None
        with unless_lost():
            self._device.close()


def _from_cache(path: Path, cache: Path | str | None, flavour: FlavourName | None) -> Path:
    if cache is None:
        raise InputError(
            f"{path}: TensorRT runs engines; build one with `sa-deploy build {path}`, or name a "
            "folder that keeps engines: --cache DIR"
        )
    machine = probe()
    graph = read_graph(path)
    chosen = load_flavour(flavour or choose_flavour(has_gpu=bool(machine.gpus)))
    if chosen.rtx and machine.gpus and (reason := rtx_obstacle(machine.gpus[0])):
        raise RunnerError(f"{path}: {reason}; {_TENSORRT_INSTEAD}")
    options = BuildOptions(profile=profile_for(graph.contract))
    measured = default_timing_cache(chosen, machine)
    workshop = Workshop(flavour=chosen, machine=machine, timing_cache=measured)
    return cached_engine(graph, Path(cache), options, workshop)[0]


_TENSORRT_INSTEAD = (
    "build it with TensorRT itself: sa-deploy build MODEL.onnx --flavour tensorrt "
    f"({INSTALL['tensorrt']})"
)


def _require_runnable(path: Path, info: EngineInfo, version: str, gpu: Gpu) -> None:
    if info.flavour == "tensorrt-rtx" and (reason := rtx_obstacle(gpu)):
        raise RunnerError(f"{path}: {reason}; {_TENSORRT_INSTEAD}")
    for reason in (version_obstacle(info, version), gpu_obstacle(info, gpu)):
        if reason:
            raise RunnerError(
                f"{path}: {reason}; build it again on this machine: sa-deploy build MODEL.onnx"
            )
