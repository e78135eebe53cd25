"""What this processor can do at most: matrix products of each precision, and reading memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sa_runtime.errors import MissingPackageError
from sa_runtime.system.extras import require

PRECISIONS = ("fp32", "bf16", "int8")
CHANNELS, ROWS, COLUMNS, LAYERS = 512, 32, 16, 8
"""A chain of 1x1 convolutions: products of (512, 512) by (512, 512), as networks are made of."""
FLOPS = 2.0 * LAYERS * CHANNELS * CHANNELS * ROWS * COLUMNS
_LEVELS = {"activation": 256, "weight": 255}
_TYPES = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("i8", "u8")}
"""What OpenVINO says that a convolution of each precision computes in."""


class _Chain(NamedTuple):
    """Square convolutions one after the other."""

    kernel: int
    channels: int
    rows: int
    columns: int
    layers: int

    @property
    def flops(self) -> float:
        return 2.0 * self.layers * (self.channels * self.kernel) ** 2 * self.rows * self.columns


_CHAINS = (_Chain(1, CHANNELS, ROWS, COLUMNS, LAYERS), _Chain(3, 256, 32, 16, 4))
"""Processors differ in which they are better at."""


class Limits:
    """Dense products and convolutions by precision: what the processor does at its best.

    Convolutions by OpenVINO where it is installed, at every precision that the processor computes
    in: a chain that OpenVINO would compute in another type than asked for is left out. NumPy's
    product stands beside that of fp32.
    """

    def __init__(self) -> None:
        self._calls = {"fp32": [(FLOPS, _numpy_product())]}
        with contextlib.suppress(MissingPackageError):
            for precision, calls in _openvino_chains().items():
                self._calls.setdefault(precision, []).extend(calls)

    def measure(self, seconds: float) -> dict[str, float]:
        """TFLOPS by precision: the best repetition of the best of its kernels.

        Args:
            seconds: of each precision.
        """
        return {
            precision: max(
                flops / fastest_s(call, seconds / len(calls)) / 1e12 for flops, call in calls
            )
            for precision, calls in self._calls.items()
        }


class Pace:
    """How fast the machine is at this moment: a fixed product in fp32 on all cores.

    Measured beside every burst, it tells a slower build from a busier machine.
    """

    def __init__(self) -> None:
        self._call = _numpy_product()
        self._call()

    def measure(self, seconds: float) -> float:
        """TFLOPS: the mean over the given seconds, of at least one product."""
        start, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - start < seconds:
            self._call()
            count += 1
        return count * FLOPS / (time.perf_counter() - start) / 1e12


def fastest_s(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call of as many as fit, one at least, after one not counted."""
    call()
    best, stop = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _numpy_product() -> Callable[[], object]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((CHANNELS, CHANNELS), np.float32)
    b = rng.standard_normal((CHANNELS, ROWS * COLUMNS * LAYERS), np.float32)
    out = np.empty((CHANNELS, ROWS * COLUMNS * LAYERS), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _openvino_chains() -> dict[str, list[tuple[float, Callable[[], object]]]]:
    ov = require("openvino", extra="cpu", purpose="the processor's limits")
    core = ov.Core()
    capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found: dict[str, list[tuple[float, Callable[[], object]]]] = {}
    for precision in PRECISIONS:
        for chain in _CHAINS if precision.upper() in capable else ():
            compiled = _compiled(ov, core, precision, chain)
            if _convolution_types(compiled) <= set(_TYPES[precision]):
                call = _request(compiled, (1, chain.channels, chain.rows, chain.columns))
                found.setdefault(precision, []).append((chain.flops, call))
    return found


def _compiled(ov: Any, core: Any, precision: str, chain: _Chain) -> Any:
    ops = require("openvino.opset13", extra="cpu", purpose="the processor's limits")
    rng = np.random.default_rng(0)

    def quantized(x: Any, limit: float, kind: str) -> Any:
        low = ops.constant(np.float32(-limit))
        high = ops.constant(np.float32(limit if kind == "weight" else limit * 127 / 128))
        return ops.fake_quantize(x, low, high, low, high, _LEVELS[kind])

    shape = (chain.channels, chain.channels, chain.kernel, chain.kernel)
    pads = [chain.kernel // 2] * 2
    image = ops.parameter([1, chain.channels, chain.rows, chain.columns], np.float32, name="x")
    y = image
    for _ in range(chain.layers):
        values = rng.standard_normal(shape, np.float32)
        weights = ops.constant(values / np.float32(chain.kernel * chain.channels**0.5))
        if precision == "int8":
            y, weights = quantized(y, 4.0, "activation"), quantized(weights, 0.3, "weight")
        y = ops.convolution(y, weights, [1, 1], pads, pads, [1, 1])
    result = ops.reduce_max(y, ops.constant(np.array([1, 2, 3])), False)
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(ov.Model([result], [image]), "CPU", settings)


def _convolution_types(compiled: Any) -> set[str]:
    """What the convolutions of a compiled model compute in."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return {
        str(info["runtimePrecision"].value)
        for info in infos
        if info["layerType"].value == "Convolution"
    }


def _request(compiled: Any, shape: tuple[int, ...]) -> Callable[[], object]:
    request = compiled.create_infer_request()
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    return lambda: request.infer({0: x}, share_inputs=True)


def read_bandwidth(seconds: float = 0.5, size_bytes: int = 2**28) -> float:
    """GB/s of reading memory with one core, by summing an array larger than the caches."""
    values = np.ones(size_bytes // 8, np.int64)
    return size_bytes / fastest_s(lambda: values.sum(), seconds) / 1e9
