"""TensorRT and TensorRT-RTX engines.

Every batch goes through a slot: page-locked memory, device memory, an execution context
and a stream of its own. With two slots one batch is copied while the other is computed.
Copies and computing of one batch size are recorded once as a CUDA graph and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import ContractError, InputError, RunnerError, bad_value
from sa_runtime.runners.overlap import OverlappingRunner, Pool
from sa_runtime.system.gpus import Gpu, probe
from sa_runtime.tensorrt.device import CudaError, Device, cuda_index, open_device, unless_lost
from sa_runtime.tensorrt.engines import BuildContext, cached_engine, default_timing_cache
from sa_runtime.tensorrt.execution import Engine, ExecutionSlot, load_engine
from sa_runtime.tensorrt.flavour import (
    INSTALL,
    FlavourName,
    choose_flavour,
    load_flavour,
    rtx_obstacle,
)
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions, profile_for
from sa_runtime.tensorrt.sidecar import (
    EngineInfo,
    engine_sha256,
    gpu_obstacle,
    read_sidecar,
    version_obstacle,
)

T = TypeVar("T")


class _InFlight(NamedTuple):
    """A batch on its way through a slot."""

    slot: ExecutionSlot
    rows: int


class TensorRTRunner(OverlappingRunner[_InFlight]):
    """An engine, or an ONNX file whose engine is kept in a cache.

    Any number of threads may call it. Each call takes a slot, each stream up to ``streams``, and a
    slot is added where none is free, so that device memory follows the most that were in use at
    once.

    Args:
        path: an ``.engine`` with its sidecar, or an ``.onnx`` file together with ``cache``.
        embedding: which of the artefact's embeddings; its first by default.
        cache: folder that keeps the engines of ONNX files, built where missing or stale.
        flavour: which TensorRT builds for the cache; what the machine has by default.
        streams: batches that a stream keeps in flight, 1 or 2; as many slots are made at opening.
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
            raise bad_value("streams", streams, "expected 1 or 2")
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
        self.depth = streams
        self._graphs = graphs
        self._slots: Pool[ExecutionSlot] = Pool(self._new_slot)
        self._engine: Engine | None = None
        self._device: Device = open_device(gpu, binding)
        self._broken = ""
        try:
            with self._device.active():
                self._engine = load_engine(path, content, info, installed)
                self._check_graph(self._engine.signature())
                self._slots.fill(streams)
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

    def _new_slot(self) -> ExecutionSlot:
        assert self._engine is not None
        return ExecutionSlot(
            self._device, self._engine, self.contract, self.info, graphs=self._graphs
        )

    def _start(self, inputs: NDArray[np.generic]) -> _InFlight:
        def start() -> ExecutionSlot:
            slot = self._slots.take()
            try:
                slot.submit(inputs)
            except BaseException:
                self._slots.give(slot)
                raise
            return slot

        return _InFlight(self._guarded(start), len(inputs))

    def _finish(self, carrier: _InFlight) -> NDArray[np.generic]:
        slot, rows = carrier
        try:
            return self._guarded(lambda: slot.result(rows))
        finally:
            self._slots.give(slot)

    def _abandon(self, carrier: _InFlight) -> None:
        # What is still in flight comes before the slot's next batch in its stream's order.
        self._slots.give(carrier.slot)

    def _guarded(self, work: Callable[[], T]) -> T:
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
            for slot in self._slots.empty():
                slot.close()
            if self._engine is not None:
                self._engine.close()
        self._engine = None
        with unless_lost():
            self._device.close()


def _from_cache(path: Path, cache: Path | str | None, flavour: FlavourName | None) -> Path:
    if cache is None:
        raise InputError(
            f"{path}: TensorRT runs engines; build one with `sa-deploy build {path}`, or name a "
            "folder that keeps engines: `cache=DIR`"
        )
    machine = probe()
    graph = read_graph(path)
    chosen = load_flavour(flavour or choose_flavour(has_gpu=bool(machine.gpus)))
    if chosen.rtx and machine.gpus and (reason := rtx_obstacle(machine.gpus[0])):
        raise RunnerError(f"{path}: {reason}; {_TENSORRT_INSTEAD}")
    options = BuildOptions(profile=profile_for(graph.contract))
    measured = default_timing_cache(chosen, machine)
    context = BuildContext(flavour=chosen, machine=machine, timing_cache=measured)
    return cached_engine(graph, Path(cache), options, context)[0]


_TENSORRT_INSTEAD = (
    "build it with TensorRT itself: `sa-deploy build MODEL.onnx --flavour tensorrt` "
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
