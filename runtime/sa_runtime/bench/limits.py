"""What this processor can do at most: matrix products of each precision, and reading memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sa_runtime.errors import MissingPackageError
from sa_runtime.extras import require

PRECISIONS = ("fp32", "bf16", "int8")
CHANNELS, ROWS, COLUMNS, LAYERS = 512, 32, 16, 8
"""A chain of 1x1 convolutions: products of (512, 512) by (512, 512), as networks are made of."""
FLOPS = 2.0 * LAYERS * CHANNELS * CHANNELS * ROWS * COLUMNS
_LEVELS = {"activation": 256, "weight": 255}


class Limits:
    """Matrix products by precision.

    OpenVINO computes them where it is installed; without it NumPy gives the one of fp32. A
    precision that the processor does not compute in is left out.
    """

    def __init__(self) -> None:
        self._calls = {"fp32": _numpy_product()}
        with contextlib.suppress(MissingPackageError):
            self._calls.update(_openvino_products())

    def measure(self, seconds: float) -> dict[str, float]:
        """TFLOPS by precision, the best of the repetitions that fit into so many seconds each."""
        return {
            precision: FLOPS / fastest_s(call, seconds) / 1e12
            for precision, call in self._calls.items()
        }


class Pace:
    """How fast the machine is at this moment: a fixed product in fp32 on all cores.

    Measured beside every burst, it tells a slower build from a busier machine.
    """

    def __init__(self) -> None:
        self._call = _numpy_product()
        self._call()

    def measure(self, seconds: float) -> float:
        """TFLOPS, the mean over so many seconds, at least one product."""
        start, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - start < seconds:
            self._call()
            count += 1
        return count * FLOPS / (time.perf_counter() - start) / 1e12


def fastest_s(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call of as many as fit, after one that is not counted."""
    call()
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
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


def _openvino_products() -> dict[str, Callable[[], object]]:
    ov = require("openvino", extra="cpu", purpose="the processor's limits")
    core = ov.Core()
    capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
    return {p: _chain(ov, core, p) for p in PRECISIONS if names[p] in capable}


def _chain(ov: Any, core: Any, precision: str) -> Callable[[], object]:
    ops = require("openvino.opset13", extra="cpu", purpose="the processor's limits")
    rng = np.random.default_rng(0)

    def quantized(x: Any, limit: float, kind: str) -> Any:
        low = ops.constant(np.float32(-limit))
        high = ops.constant(np.float32(limit if kind == "weight" else limit * 127 / 128))
        return ops.fake_quantize(x, low, high, low, high, _LEVELS[kind])

    image = ops.parameter([1, CHANNELS, ROWS, COLUMNS], np.float32, name="x")
    y = image
    for _ in range(LAYERS):
        values = rng.standard_normal((CHANNELS, CHANNELS, 1, 1), np.float32)
        weights = ops.constant(values / np.float32(CHANNELS**0.5))
        if precision == "int8":
            y, weights = quantized(y, 4.0, "activation"), quantized(weights, 0.3, "weight")
        y = ops.convolution(y, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    result = ops.reduce_max(y, ops.constant(np.array([1, 2, 3])), False)
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(
        ov.Model([result], [image]), "CPU", settings
    ).create_infer_request()
    x = rng.standard_normal((1, CHANNELS, ROWS, COLUMNS), np.float32)
    return lambda: request.infer({0: x}, share_inputs=True)


def read_bandwidth(seconds: float = 0.5, size_bytes: int = 2**28) -> float:
    """GB/s of reading memory with one core, by summing an array larger than the caches."""
    values = np.ones(size_bytes // 8, np.int64)
    return size_bytes / fastest_s(lambda: values.sum(), seconds) / 1e9
