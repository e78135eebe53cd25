"""The GPUs of this machine, asked of NVIDIA's driver itself: no package needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        index: CUDA's.
        name: as the driver gives it.
        compute_capability: 90 for 9.0.
        memory_bytes: of the device, in total.
    """

    index: int
    name: str
    compute_capability: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the driver says.

    Attributes:
        cuda_version: newest CUDA the driver serves, 13000 for 13.0; ``None`` without a driver.
        gpus: by CUDA's index.
        problem: why there is no GPU; empty where there is one.
    """

    cuda_version: int | None
    gpus: tuple[Gpu, ...]
    problem: str


def probe() -> Machine:
    """Ask the driver. Never raises; opens no context and takes no device memory.

    >>> isinstance(probe().gpus, tuple)
    True
    """
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return Machine(cuda_version=None, gpus=(), problem=f"no NVIDIA driver ({_LIBRARY})")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    status = driver.cuInit(0)
    if status != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode()
        return Machine(
            cuda_version=version.value, gpus=(), problem=f"the driver offers no GPU: {reason}"
        )
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return Machine(
        cuda_version=version.value,
        gpus=gpus,
        problem="" if gpus else "the driver is there, but no GPU is visible to this process",
    )


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        index=index,
        name=name.value.decode(),
        compute_capability=attribute(_MAJOR) * 10 + attribute(_MINOR),
        memory_bytes=memory.value,
    )
