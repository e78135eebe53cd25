"""A GPU through NVIDIA's cuda-bindings."""

# ruff: noqa: D102 (what the methods do stands in Device)
from __future__ import annotations

from typing import Any

from sa_runtime.system.extras import require
from sa_runtime.tensorrt.device import Bytes, Device, explain, view

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class CudaDevice(Device):
    """One GPU; see :class:`sa_runtime.tensorrt.device.Device`.

    Args:
        index: CUDA's.

    Raises:
        CudaError: no driver, or no such GPU.
    """

    binding = "cuda-bindings"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        purpose = "running an engine"
        self._driver: Any = require("cuda.bindings.driver", extra="gpu", purpose=purpose)
        try:
            self._call("cuInit", 0)
        except RuntimeError as exc:  # the package's own, where there is no libcuda
            raise explain("cuInit", str(exc), sticky=False) from exc
        self._device = self._call("cuDeviceGet", index, context=f"GPU {index}")
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._open = True

    def push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def allocate(self, size: int) -> int:
        return int(self._call("cuMemAlloc", size, context=f"{size / 2**20:.0f} MiB"))

    def free(self, pointer: int) -> None:
        self._call("cuMemFree", pointer)

    def pinned(self, size: int) -> Bytes:
        return view(int(self._call("cuMemHostAlloc", size, 0)), size)

    def free_pinned(self, array: Bytes) -> None:
        self._call("cuMemFreeHost", array.ctypes.data)

    def stream(self) -> int:
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def free_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def upload(self, pointer: int, source: Bytes, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", pointer, source.ctypes.data, source.nbytes, stream)

    def download(self, target: Bytes, pointer: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, pointer, target.nbytes, stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        modes = self._driver.CUstreamCaptureMode
        self._call("cuStreamBeginCapture", stream, modes.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def free_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", graph)

    def free_memory(self) -> int:
        left, _ = self._call("cuMemGetInfo")
        return int(left)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _call(self, name: str, *arguments: Any, context: str = "") -> Any:
        """Call the driver; its results without the status, one of them unwrapped."""
        driver = self._driver
        status, *results = getattr(driver, name)(*arguments)
        if status != driver.CUresult.CUDA_SUCCESS:
            _, text = driver.cuGetErrorString(status)
            # A lost context fails this call too, whatever call is made.
            lost = name != "cuInit" and driver.cuCtxSynchronize()[0] == status
            raise explain(
                name, text.decode() if text else str(status), sticky=lost, context=context
            )
        return results[0] if len(results) == 1 else tuple(results)
