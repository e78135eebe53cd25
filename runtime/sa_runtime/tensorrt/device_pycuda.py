"""A GPU through pycuda, with the driver's own functions for graphs, which pycuda lacks."""

# ruff: noqa: D102 (what the methods do stands in Device)
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sa_runtime.system.extras import require
from sa_runtime.tensorrt.device import Bytes, Device, explain

_P = ParamSpec("_P")
_R = TypeVar("_R")
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_CAPTURE_ERRORS = range(900, 910)  # CUDA_ERROR_STREAM_CAPTURE_*


class PycudaDevice(Device):
    """One GPU; see :class:`sa_runtime.tensorrt.device.Device`.

    Args:
        index: CUDA's.

    Raises:
        CudaError: no driver, or no such GPU.
    """

    binding = "pycuda"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._driver: Any = require("pycuda.driver", extra="pycuda", purpose="running an engine")
        self._raw = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", self._driver.init)
        device = self._call("cuDeviceGet", self._driver.Device, index, context=f"GPU {index}")
        # Objects of pycuda free what they hold when they die, so that they are kept by handle.
        self._context = self._call("cuDevicePrimaryCtxRetain", device.retain_primary_context)
        self._memory: dict[int, Any] = {}
        self._pinned: dict[int, Bytes] = {}
        self._streams: dict[int, Any] = {}
        self._open = True

    def push(self) -> None:
        self._call("cuCtxPushCurrent", self._context.push)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent", self._driver.Context.pop)

    def allocate(self, size: int) -> int:
        context = f"{size / 2**20:.0f} MiB"
        memory = self._call("cuMemAlloc", self._driver.mem_alloc, size, context=context)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        self._call("cuMemFree", self._memory.pop(pointer).free)

    def pinned(self, size: int) -> Bytes:
        array: Bytes = self._call("cuMemHostAlloc", self._driver.pagelocked_empty, size, np.uint8)
        self._pinned[array.ctypes.data] = array
        return array

    def free_pinned(self, array: Bytes) -> None:
        owner: Any = self._pinned.pop(array.ctypes.data).base
        self._call("cuMemFreeHost", owner.free)

    def stream(self) -> int:
        stream = self._call("cuStreamCreate", self._driver.Stream, _NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def free_stream(self, stream: int) -> None:
        del self._streams[stream]

    def upload(self, pointer: int, source: Bytes, stream: int) -> None:
        copy = self._driver.memcpy_htod_async
        self._call("cuMemcpyHtoDAsync", copy, pointer, source, self._streams[stream])

    def download(self, target: Bytes, pointer: int, stream: int) -> None:
        copy = self._driver.memcpy_dtoh_async
        self._call("cuMemcpyDtoHAsync", copy, target, pointer, self._streams[stream])

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", self._streams[stream].synchronize)

    def begin_capture(self, stream: int) -> None:
        self._direct("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._direct("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            self._direct("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags)
        finally:
            self._direct("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        self._direct("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free_graph(self, graph: int) -> None:
        self._direct("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def free_memory(self) -> int:
        left, _ = self._call("cuMemGetInfo", self._driver.mem_get_info)
        return int(left)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._call("cuDevicePrimaryCtxRelease", self._context.detach)

    def _call(
        self, name: str, function: Callable[_P, _R], *arguments: _P.args, **keywords: _P.kwargs
    ) -> _R:
        """Call pycuda; its errors as ours. ``context`` among the keywords is for the message."""
        context = str(keywords.pop("context", ""))
        try:
            return function(*arguments, **keywords)
        except (self._driver.Error, MemoryError) as exc:
            reason = str(exc).partition(" failed: ")[2] or str(exc)
            raise explain(name, reason, sticky=self._lost(), context=context) from exc

    def _direct(self, name: str, *arguments: Any) -> None:
        status = getattr(self._raw, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._raw.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            lost = status not in _CAPTURE_ERRORS and self._lost()
            raise explain(name, reason, sticky=lost)

    def _lost(self) -> bool:
        """Whether the context is lost: a current one that does not even synchronise."""
        current = ctypes.c_void_p()
        self._raw.cuCtxGetCurrent(ctypes.byref(current))
        return bool(current.value) and self._raw.cuCtxSynchronize() != 0
