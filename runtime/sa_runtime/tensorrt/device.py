"""Memory, streams and graphs of one GPU, as little of CUDA as running an engine takes.

pycuda where it is installed, NVIDIA's own cuda-bindings otherwise; both drive the same
primary context, the one that torch and TensorRT use too. Handles and pointers are plain
integers. Several threads may use one device, each with the context current in itself; nothing
that belongs to one slot is used by two of them at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import MissingPackageError, RunnerError, bad_value

Bytes = NDArray[np.uint8]
BINDINGS: dict[str, str] = {
    "pycuda": "sa_runtime.tensorrt.device_pycuda:PycudaDevice",
    "cuda-bindings": "sa_runtime.tensorrt.device_cuda:CudaDevice",
}
"""Device classes by the package that drives them, the preferred one first."""
_MODULES = {"pycuda": "pycuda.driver", "cuda-bindings": "cuda.bindings"}


class CudaError(RunnerError):
    """A CUDA call failed.

    Attributes:
        sticky: the context is lost: every later call of this process fails too.
    """

    def __init__(self, message: str, *, sticky: bool = False) -> None:
        super().__init__(message)
        self.sticky = sticky


class Device(ABC):
    """One GPU.

    Attributes:
        binding: name of the package that drives it.
        index: CUDA's.
    """

    binding = ""

    def __init__(self, index: int) -> None:
        self.index = index

    @abstractmethod
    def push(self) -> None:
        """Make the primary context current in this thread."""

    @abstractmethod
    def pop(self) -> None:
        """Undo :meth:`push`."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes; its address."""

    @abstractmethod
    def free(self, pointer: int) -> None:
        """Give device memory back."""

    @abstractmethod
    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory, (size,) uint8: copies from and to it overlap computing."""

    @abstractmethod
    def free_pinned(self, array: Bytes) -> None:
        """Give page-locked memory back; the array must not be used again."""

    @abstractmethod
    def stream(self) -> int:
        """A stream that does not wait for the default one; its handle."""

    @abstractmethod
    def free_stream(self, stream: int) -> None:
        """Destroy a stream."""

    @abstractmethod
    def upload(self, pointer: int, source: Bytes, stream: int) -> None:
        """Copy page-locked memory to the device, in the stream's order."""

    @abstractmethod
    def download(self, target: Bytes, pointer: int, stream: int) -> None:
        """Copy device memory to page-locked memory, in the stream's order."""

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done everything."""

    @abstractmethod
    def begin_capture(self, stream: int) -> None:
        """Record what is put into the stream from now on instead of doing it."""

    @abstractmethod
    def end_capture(self, stream: int) -> int:
        """Stop recording; handle of the executable graph."""

    @abstractmethod
    def launch(self, graph: int, stream: int) -> None:
        """Do what a graph recorded."""

    @abstractmethod
    def free_graph(self, graph: int) -> None:
        """Destroy a graph."""

    @abstractmethod
    def free_memory(self) -> int:
        """Device memory that is left, in bytes."""

    @abstractmethod
    def close(self) -> None:
        """Release the primary context."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """The primary context, current inside the block."""
        self.push()
        try:
            yield
        finally:
            self.pop()


@contextmanager
def unless_lost() -> Iterator[None]:
    """Pass over what a lost context refuses while things are freed: they go with the process.

    >>> with unless_lost():
    ...     raise CudaError("an illegal memory access was encountered", sticky=True)
    """
    try:
        yield
    except CudaError as exc:
        if not exc.sticky:
            raise


def cuda_index(device: str) -> int:
    """CUDA's index of a device such as ``cuda`` or ``cuda:1``.

    Raises:
        InputError: another kind of device.

    >>> cuda_index("cuda"), cuda_index("cuda:1")
    (0, 1)
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        rule = "TensorRT runs on NVIDIA GPUs, expected cuda or cuda:1"
        raise bad_value("device", device, rule)
    return int(match[1] or 0)


def open_device(index: int = 0, binding: str | None = None) -> Device:
    """Open a GPU.

    Args:
        index: CUDA's.
        binding: a name of :data:`BINDINGS`; ``None`` takes the first that is installed.

    Raises:
        InputError: an unknown binding.
        MissingPackageError: none is installed, or not the one asked for.
        CudaError: there is no such GPU.
    """
    if binding is not None and binding not in BINDINGS:
        raise bad_value("binding", binding, f"unknown; choose from {', '.join(BINDINGS)}")
    wanted = list(BINDINGS) if binding is None else [binding]
    for name in wanted:
        if installed(name):
            module, _, kind = BINDINGS[name].partition(":")
            device: Device = getattr(importlib.import_module(module), kind)(index)
            return device
    raise MissingPackageError(
        f"running an engine needs {' or '.join(wanted)}, which is not installed. "
        "Install one: pip install cuda-bindings, or pip install pycuda (needs the CUDA toolkit)"
    )


def installed(binding: str) -> bool:
    """Whether the package of a binding is there.

    >>> installed("cuda-bindings") in (True, False)
    True
    """
    try:
        return importlib.util.find_spec(_MODULES[binding]) is not None
    except ModuleNotFoundError:
        return False


def explain(call: str, reason: str, *, sticky: bool, context: str = "") -> CudaError:
    """A CUDA failure as an error that says what to do.

    >>> explain("cuMemAlloc", "out of memory", sticky=False, context="64 MiB").sticky
    False
    """
    where = f" ({context})" if context else ""
    if sticky:
        mend = "the GPU's context is lost: start the process again, and look at `nvidia-smi`"
    elif "memory" in reason and "out of" in reason:
        mend = "free memory on the GPU, or build the engine with a smaller `max_batch`"
    else:
        mend = "look at `sa-deploy doctor`"
    return CudaError(f"CUDA: {call}{where} failed: {reason}; {mend}", sticky=sticky)


def view(address: int, size: int) -> Bytes:
    """Host memory at an address as (size,) uint8, without a copy."""
    import ctypes

    buffer: Any = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(buffer, np.uint8)
