"""The kernel that engines embed, launched on a real GPU by the driver alone: no TensorRT.

Needs Triton and cuda-bindings beside the GPU; the PTX and the launch come from the plugin as
TensorRT's own template reads them.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, attention_pool
from sa_runtime.system.gpus import probe
from sa_runtime.tensorrt import plugin
from sa_runtime.tensorrt.device import BINDINGS, CudaError, Device, installed, open_device
from sa_runtime.tensorrt.ptx import Kernel, kernel_from_pool
from sa_runtime.tensorrt.tactics import ELEMENTS, TACTICS, Element, Pool, tactics_for
from tests.runtime.tensorrt.aot_plugin import Launch, Registry, built_plugin, launch_of

MACHINE = probe()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not MACHINE.gpus, reason=f"needs an NVIDIA GPU: {MACHINE.problem}"),
]
KINDS = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1e-2}
GUARD = 64  # elements behind the result that nobody may write
MAPS = [
    (2048, 24, 8, 6),
    (2048, 24, 8, 1),
    (2048, 16, 8, 6),
    (256, 96, 32, 1),
    (512, 8, 4, 1),
    (37, 7, 5, 3),
    (300, 9, 3, 2),
    (3, 96, 33, 5),
    (1, 1, 1, 1),
]


def to_bits(values: NDArray[np.float32], element: Element) -> NDArray[np.generic]:
    """As the element's bits; BF16, which NumPy has not, as uint16 rounded to nearest even."""
    if element == "fp32":
        return values
    if element == "fp16":
        return values.astype(np.float16)
    wide = values.view(np.uint32)
    bits: NDArray[np.generic] = ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
    return bits


def from_bits(bits: NDArray[Any], element: Element) -> NDArray[np.float32]:
    if element != "bf16":
        return bits.astype(np.float32)
    wide: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide


class Gpu:
    """The driver beside a :class:`Device`: what only TensorRT does otherwise, launching."""

    def __init__(self, device: Device) -> None:
        from cuda.bindings import driver

        self.device, self.driver = device, driver

    def call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self.driver, name)(*arguments)
        assert status == self.driver.CUresult.CUDA_SUCCESS, f"{name}: {status}"
        return results[0] if results else None

    @contextmanager
    def loaded(self, launch: Launch) -> Iterator[Callable[[tuple[int, int], int], None]]:
        """Load the text as an engine does: ``launch((x, y), stream)`` while the block lasts."""
        module = self.call("cuModuleLoadData", launch.ptx + b"\0")
        function = self.call("cuModuleGetFunction", module, launch.name.encode())

        def put(pointers: tuple[int, int], stream: int) -> None:
            arguments = (pointers, (ctypes.c_void_p, ctypes.c_void_p))
            sizes = (*launch.grid, *launch.block, launch.shared_bytes)
            self.call("cuLaunchKernel", function, *sizes, stream, arguments, 0)

        yield put
        self.call("cuModuleUnload", module)

    def run(self, launch: Launch, bits: NDArray[np.generic], shape: tuple[int, ...]) -> Any:
        """The kernel's answer of ``shape``; nothing may be unwritten, nothing behind it written."""
        device = self.device
        kind = bits.dtype
        poison = np.full(int(np.prod(shape)) + GUARD, 0xFFFF if kind == np.uint16 else np.nan, kind)
        stream = device.stream()
        x, y = device.allocate(bits.nbytes), device.allocate(poison.nbytes)
        host_x, host_y = device.pinned(bits.nbytes), device.pinned(poison.nbytes)
        try:
            host_x[:] = bits.reshape(-1).view(np.uint8)
            host_y[:] = poison.view(np.uint8)
            device.upload(x, host_x, stream)
            device.upload(y, host_y, stream)
            with self.loaded(launch) as put:
                put((x, y), stream)
                device.download(host_y, y, stream)
                device.synchronize(stream)
            answer = host_y.copy().view(kind)
        finally:
            for pointer in (x, y):
                device.free(pointer)
            for array in (host_x, host_y):
                device.free_pinned(array)
            device.free_stream(stream)
        np.testing.assert_array_equal(
            answer[-GUARD:].view(np.uint8), poison[-GUARD:].view(np.uint8)
        )
        return answer[:-GUARD].reshape(shape)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    """The first GPU through cuda-bindings, its context current."""
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    device = open_device(0, "cuda-bindings")
    with device.active():
        yield Gpu(device)
    device.close()


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize(("channels", "height", "width", "parts"), MAPS)
def test_every_embedded_kernel_equals_the_reference(
    gpu: Gpu,
    stub_tensorrt: ModuleType,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    element: Element,
    normalize: Normalize,
    channels: int,
    height: int,
    width: int,
    parts: int,
) -> None:
    compute_capability = MACHINE.gpus[0].compute_capability
    plugin.register_attention_pool(stub_tensorrt, compute_capability)
    generator = np.random.default_rng(0)
    values = generator.random((3, channels, height, width), np.float32)
    values *= (values > 0.5) * np.float32(1e-3 if normalize == "softmax" else 1)
    values[1] = 0
    bits = to_bits(values, element)
    wanted = attention_pool(from_bits(bits, element), parts, normalize)
    made = built_plugin(
        stub_tensorrt,
        registry,
        monkeypatch,
        kind=KINDS[element],
        normalize=normalize.encode() + b"\0",
        dims=(channels, height, width),
        parts=parts,
        batch=len(values),
    )
    asked = Pool(
        channels=channels,
        height=height,
        width=width,
        parts=parts,
        normalize=normalize,
        element=element,
    )
    for number in tactics_for(asked):
        launch = launch_of(stub_tensorrt, made, monkeypatch, number)
        got = from_bits(gpu.run(launch, bits, (3, channels, parts)), element)
        tolerance = TOLERANCE[element]
        np.testing.assert_allclose(
            got, wanted, rtol=tolerance, atol=tolerance * wanted.max(), err_msg=f"tactic {number}"
        )


def test_sums_that_overflow_fp16_do_not(gpu: Gpu) -> None:
    asked = Pool(channels=2048, height=24, width=8, parts=6, normalize="sum", element="fp16")
    bits = np.full((1, 2048, 24, 8), 1000, np.float16)
    for number in tactics_for(asked):
        kernel = kernel_from_pool(asked, number, MACHINE.gpus[0].compute_capability)
        got = gpu.run(launched(kernel, number, batch=1), bits, (1, 2048, 6))
        np.testing.assert_allclose(got.astype(np.float32), 1000)


def launched(kernel: Kernel, tactic: int, *, batch: int) -> Launch:
    return Launch(
        name=kernel.name,
        ptx=kernel.ptx.encode(),
        grid=(batch, TACTICS[tactic - 1].splits, 1),
        block=(kernel.threads, 1, 1),
        shared_bytes=kernel.shared_bytes,
        scalars=0,
    )


@pytest.mark.parametrize("architecture", [80, 90])
def test_the_text_for_older_gpus_runs_on_newer_ones(gpu: Gpu, architecture: int) -> None:
    """What ``--hardware-compat ampere-plus`` embeds."""
    here = MACHINE.gpus[0].compute_capability
    if architecture > here or (architecture == 90 and here != 90):
        pytest.skip(f"compute capability {here / 10} does not run text for {architecture / 10}")
    asked = Pool(channels=512, height=8, width=4, parts=2, normalize="sum", element="fp32")
    values = np.random.default_rng(0).random((2, 512, 8, 4), np.float32)
    kernel = kernel_from_pool(asked, 2, architecture)
    got = gpu.run(launched(kernel, 2, batch=2), values, (2, 512, 2))
    np.testing.assert_allclose(got, attention_pool(values, 2), rtol=1e-5)


bindings = pytest.mark.parametrize(
    "binding",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(not installed(name), reason=f"{name} is not installed"),
        )
        for name in BINDINGS
    ],
)


@bindings
def test_a_recorded_graph_replays_on_new_pixels(binding: str) -> None:
    device = open_device(0, binding)
    asked = Pool(channels=512, height=8, width=4, parts=1, normalize="sum", element="fp32")
    kernel = kernel_from_pool(asked, 2, MACHINE.gpus[0].compute_capability)
    gpu = Gpu(device)
    with device.active():
        stream = device.stream()
        x, y = device.allocate(4 * 512 * 32 * 4), device.allocate(4 * 512 * 4)
        host_x, host_y = device.pinned(4 * 512 * 32 * 4), device.pinned(4 * 512 * 4)
        with gpu.loaded(launched(kernel, 2, batch=4)) as put:
            device.begin_capture(stream)
            device.upload(x, host_x, stream)
            put((x, y), stream)
            device.download(host_y, y, stream)
            graph = device.end_capture(stream)
            for seed in range(20):
                values = np.random.default_rng(seed).random((4, 512, 8, 4), np.float32)
                host_x[:] = values.reshape(-1).view(np.uint8)
                host_y[:] = 255
                device.launch(graph, stream)
                device.synchronize(stream)
                got = host_y.view(np.float32).reshape(4, 512, 1)
                np.testing.assert_allclose(got, attention_pool(values, 1), rtol=1e-5)
        device.free_graph(graph)
        device.free(x)
        device.free(y)
        device.free_pinned(host_x)
        device.free_pinned(host_y)
        device.free_stream(stream)
    device.close()


@bindings
def test_a_thousand_openings_leave_no_memory_behind(binding: str) -> None:
    keeper = open_device(0, binding)
    with keeper.active():
        for index in range(1000):
            device = open_device(0, binding)
            with device.active():
                stream, pointer = device.stream(), device.allocate(1 << 20)
                host = device.pinned(1 << 16)
                device.begin_capture(stream)
                device.upload(pointer, host, stream)
                device.free_graph(device.end_capture(stream))
                device.free(pointer)
                device.free_pinned(host)
                device.free_stream(stream)
            device.close()
            if index == 9:
                before = keeper.free_memory()
        lost = before - keeper.free_memory()
    keeper.close()
    assert lost < 4 << 20


@bindings
def test_too_little_memory_is_no_lost_context(binding: str) -> None:
    device = open_device(0, binding)
    with device.active():
        with pytest.raises(CudaError, match=r"cuMemAlloc.*out of memory; free memory") as caught:
            device.allocate(1 << 50)
        assert not caught.value.sticky
        device.free(device.allocate(1 << 20))
    device.close()


STICKY = """
import sys
import numpy as np
from sa_runtime.tensorrt.device import CudaError, open_device, unless_lost
from sa_runtime.tensorrt.ptx import kernel_from_pool
from sa_runtime.tensorrt.tactics import Pool
from tests.runtime.tensorrt.test_kernel_on_gpu import Gpu, MACHINE, launched

device = open_device(0, sys.argv[1])
pool = Pool(channels=512, height=8, width=4, parts=1, normalize="sum", element="fp32")
kernel = kernel_from_pool(pool, 2, MACHINE.gpus[0].compute_capability)
with device.active():
    stream, memory = device.stream(), device.allocate(1 << 20)
    host = device.pinned(1 << 10)
    Gpu(device).loaded(launched(kernel, 2, batch=1)).__enter__()((16, 16), stream)
    for call in (
        lambda: device.synchronize(stream),
        lambda: device.allocate(1 << 20),
        lambda: device.upload(memory, host, stream),
    ):
        try:
            call()
        except CudaError as error:
            print(error.sticky, error)
    with unless_lost():
        device.free_stream(stream)
with unless_lost():
    device.close()
print("closed")
"""


@bindings
def test_an_illegal_access_loses_the_context_and_is_said_at_every_call(binding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STICKY, binding], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines[:3]:
        assert line.startswith("True CUDA: "), line
        assert "illegal memory access" in line
        assert "the GPU's context is lost: start the process again" in line
    assert lines[3] == "closed"
