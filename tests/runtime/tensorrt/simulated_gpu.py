"""A simulated GPU: the real cuda-bindings (or pycuda) on a driver that computes here.

``simulated_cuda.c`` is the driver, compiled against NVIDIA's header. TensorRT's objects are doubles
of the classes of the real bindings, which refuse what those do not take.
"""

from __future__ import annotations

import ctypes
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH, DIM = 8, 4, 6
# Whole numbers, so that float32 sums are exact whatever the order.
WEIGHTS = np.random.default_rng(7).integers(-9, 10, (HEIGHT * WIDTH * 3, DIM)).astype(np.float32)


def network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the simulated engine computes: (N, H, W, 3) -> (N, DIM), not of unit length."""
    flat = images.reshape(len(images), HEIGHT * WIDTH * 3).astype(np.float32)
    result: NDArray[np.float32] = flat @ WEIGHTS
    return result


def crops(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 noise."""
    shape = (count, HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class World:
    """The simulated driver, TensorRT's classes and a place for engines."""

    def __init__(self, libcuda: Path, binding: str) -> None:
        self.driver = ctypes.CDLL(str(libcuda), mode=ctypes.RTLD_GLOBAL)
        self.binding = binding
        import tensorrt

        from tests.runtime.tensorrt.doubles import double

        self.trt: Any = tensorrt
        self.double = double
        self.contexts: list[Context] = []
        self.refuse = False
        self.fail_execution = False
        self.reuse_contexts = False
        self._engine: Any = None
        self._callbacks: list[Any] = []
        self._real_runtimes: dict[str, type] = {}
        self.use(tensorrt)

    def use(self, module: Any) -> None:
        """Make engines those of one TensorRT module."""
        self.trt, self._engine = module, None
        if module.__name__ not in self._real_runtimes:
            self._real_runtimes[module.__name__] = module.Runtime
            module.Runtime = self._runtime

    def count(self, name: str) -> int:
        """One of the driver's counters."""
        return int(ctypes.c_long.in_dll(self.driver, f"sim_{name}").value)

    def set(self, name: str, value: int, kind: Any = ctypes.c_int) -> None:
        """One of the driver's switches."""
        kind.in_dll(self.driver, f"sim_{name}").value = value

    def reset(self) -> None:
        """A device on which nothing was ordered and nothing is held."""
        for switch in ("fail_capture", "sticky"):
            self.set(switch, 0)
        self.set("capability", 90)
        self.set("memory_limit", 1 << 30, ctypes.c_size_t)
        self.set("memory_used", 0, ctypes.c_size_t)
        for name in self.held():
            self.set(name, 0, ctypes.c_long)

    def held(self) -> dict[str, int]:
        """Everything that may leak."""
        names = ("device_allocations", "pinned_allocations", "streams", "graphs", "contexts")
        return {name: self.count(name) for name in names}

    def engine(self, sizes: tuple[int, int, int] = (1, 4, 8), **changes: Any) -> Path:
        """An engine file with its sidecar."""
        from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
        from sa_runtime.tensorrt.options import BuildOptions, Profile
        from sa_runtime.tensorrt.sidecar import EngineInfo, engine_sha256, write_engine

        low, best, high = sizes
        content = b"engine"
        contract = Contract(
            input=InputSpec(height=HEIGHT, width=WIDTH),
            output=OutputSpec(dim=DIM),
            weights_sha256="0" * 64,
            space="simulated",
            max_batch=high,
            fixed_batch=low == high,
        )
        info = EngineInfo(
            contract=contract,
            flavour="tensorrt",
            tensorrt_version=self.trt.__version__,
            gpu="Simulated GPU 0",
            compute_capability=90,
            cuda_version=13000,
            options=BuildOptions(profile=Profile(min=low, opt=best, max=high)),
            precision="fp32",
            plugin_nodes=0,
            plugin_sha256="",
            onnx_sha256="",
            engine_sha256=engine_sha256(content),
            layers={},
            compute_types={},
            built_at="",
            build_seconds=0.0,
        )
        path = Path(tempfile.mkdtemp()) / "model.engine"
        write_engine(path, content, dataclasses.replace(info, **changes))
        return path

    def open(self, path: Path | None = None, **options: Any) -> Any:
        """A runner on an engine."""
        from sa_runtime.runners.tensorrt import TensorRTRunner

        return TensorRTRunner(path or self.engine(), binding=self.binding, **options)

    def _runtime(self, logger: Any) -> Any:
        runtime = self.double(self._real_runtimes[self.trt.__name__])
        runtime.deserialize_cuda_engine.side_effect = lambda content: self._deserialized(logger)
        return runtime

    def _deserialized(self, logger: Any) -> Any:
        if self.refuse:
            logger.log(self.trt.Logger.ERROR, "Serialization assertion failed:\n  version tag")
            return None
        if self._engine is not None:
            return self._engine
        trt, engine = self.trt, self.double(self.trt.ICudaEngine)
        tensors = {
            "images": (trt.TensorIOMode.INPUT, trt.DataType.UINT8, (-1, HEIGHT, WIDTH, 3)),
            "embeddings": (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT, (-1, DIM)),
            "extra": (trt.TensorIOMode.OUTPUT, trt.DataType.HALF, (-1, 3)),
        }
        engine.num_io_tensors = len(tensors)
        engine.get_tensor_name.side_effect = list(tensors).__getitem__
        engine.get_tensor_mode.side_effect = lambda name: tensors[name][0]
        engine.get_tensor_dtype.side_effect = lambda name: tensors[name][1]
        engine.get_tensor_shape.side_effect = lambda name: trt.Dims(tensors[name][2])
        engine.create_execution_context.side_effect = self._context
        if hasattr(trt, "IRuntimeCache"):
            config = engine.create_runtime_config.return_value = self.double(trt.IRuntimeConfig)
            kernels = config.create_runtime_cache.return_value = self.double(trt.IRuntimeCache)
            kernels.serialize.side_effect = lambda: b"kernels"
        self._engine = engine
        return engine

    def _context(self, *_: Any) -> Any:
        if self.reuse_contexts and len(self.contexts) > 1:
            self.contexts.append(self.contexts.pop(0))
            return self.contexts[-1].double
        return Context(self).double


class Context:
    """An execution context: computes :func:`network` in the driver's stream order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.shapes: list[tuple[int, ...]] = []
        world.contexts.append(self)
        self.double = world.double(world.trt.IExecutionContext)
        self.double.set_tensor_address.side_effect = self._address
        self.double.set_input_shape.side_effect = self._shape
        self.double.execute_async_v3.side_effect = self._execute

    def _address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def _shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self.shape = tuple(shape)
        self.shapes.append(self.shape)
        return True

    def _execute(self, stream_handle: int) -> bool:
        if self.world.fail_execution:
            return False
        shape, source = self.shape, self.addresses["images"]
        target = self.addresses["embeddings"]

        def compute(_: object) -> None:
            raw = (ctypes.c_uint8 * int(np.prod(shape))).from_address(source)
            images = np.ctypeslib.as_array(raw).reshape(shape)
            out = (ctypes.c_float * (shape[0] * DIM)).from_address(target)
            np.ctypeslib.as_array(out)[:] = network(images).ravel()

        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compute)
        self.world._callbacks.append(callback)  # ctypes frees what nobody holds
        status = self.world.driver.sim_enqueue_compute(
            ctypes.c_void_p(stream_handle), callback, None
        )
        assert status == 0, status
        return True
