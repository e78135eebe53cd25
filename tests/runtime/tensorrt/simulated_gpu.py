"""The runner on a simulated GPU: real cuda-bindings (or pycuda) on a driver that computes here.

``simulated_cuda.c`` is the driver, the stubbed TensorRT 11 bindings give the classes that
the engine's doubles are held to. Run as a script, because the driver must be loaded before
anything looks for one::

    python simulated_gpu.py LIBCUDA STUB_SITE BINDING OUT.json

writes one entry per scenario: "" where it passed, its traceback where not.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HEIGHT, WIDTH, DIM = 8, 4, 6
# Whole numbers, so that float32 sums are exact whatever the order.
WEIGHTS = np.random.default_rng(7).integers(-9, 10, (HEIGHT * WIDTH * 3, DIM)).astype(np.float32)
SCENARIOS: dict[str, Callable[[World], None]] = {}


def scenario(function: Callable[[World], None]) -> Callable[[World], None]:
    """Collect a scenario under its name."""
    SCENARIOS[function.__name__] = function
    return function


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

    def held(self) -> dict[str, int]:
        """Everything that may leak."""
        names = ("device_allocations", "pinned_allocations", "streams", "graphs", "contexts")
        return {name: self.count(name) for name in names}

    def engine(self, sizes: tuple[int, int, int] = (1, 4, 8), **changes: Any) -> Path:
        """An engine file with its sidecar."""
        from sa_runtime.contract import Contract, InputSpec, OutputSpec
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


@scenario
def every_batch_size_gives_every_row(world: World) -> None:
    with world.open() as runner:
        for count in (0, 1, 2, 3, 7, 8, 9, 17):
            images = crops(count, count)
            np.testing.assert_array_equal(runner.run(images), network(images))


@scenario
def without_graphs_the_answers_are_the_same(world: World) -> None:
    with world.open(graphs=False) as runner:
        for count in (1, 3, 8, 9):
            images = crops(count, count)
            np.testing.assert_array_equal(runner.run(images), network(images))
        assert world.count("graphs") == 0


@scenario
def graphs_are_recorded_once_a_size_and_replayed(world: World) -> None:
    with world.open(streams=1) as runner:
        runner.run(crops(5))
        recorded, launched = world.count("graphs"), world.count("launches")
        context = world.contexts[-1]
        calls = context.double.execute_async_v3.call_count
        for seed in range(20):
            images = crops(5, seed)
            np.testing.assert_array_equal(runner.run(images), network(images))
        assert world.count("graphs") == recorded
        assert world.count("launches") == launched + 20
        # TensorRT itself is not called again, and its shape does not change.
        assert context.double.execute_async_v3.call_count == calls
        assert context.shapes == [(5, HEIGHT, WIDTH, 3)]


@scenario
def what_cannot_be_recorded_is_enqueued(world: World) -> None:
    world.set("fail_capture", 1)
    launched = world.count("launches")
    with world.open() as runner:
        for count in (3, 3, 8):
            images = crops(count, count)
            np.testing.assert_array_equal(runner.run(images), network(images))
        assert world.count("launches") == launched
    assert world.count("graphs") == 0


@scenario
def a_stream_of_batches_keeps_its_order(world: World) -> None:
    batches = [crops(count, count) for count in (3, 0, 8, 20, 1, 5)]
    with world.open() as runner:
        got = list(runner.run_stream(iter(batches)))
    assert [len(item) for item in got] == [3, 0, 8, 20, 1, 5]
    for images, vectors in zip(batches, got, strict=True):
        np.testing.assert_array_equal(vectors, network(images))


@scenario
def two_streams_have_work_at_the_same_time(world: World) -> None:
    with world.open() as runner:
        list(runner.run_stream([crops(8, 1), crops(8, 2)]))  # graphs are recorded
        waits, launches = world.count("synchronizes"), world.count("launches")
        results = runner.run_stream([crops(8, seed) for seed in range(5)])
        for index in range(5):
            next(results)
            # While the caller has one answer, two more batches have been started.
            assert world.count("synchronizes") - waits == index + 1
            assert world.count("launches") - launches == min(index + 3, 5)
        world.set("traced", 0)
        list(runner.run_stream([crops(8, seed) for seed in range(4)]))
        first, second, third, fourth = (ctypes.c_int * 4).in_dll(world.driver, "sim_trace")
        assert first == third != second == fourth


@scenario
def one_stream_waits_for_every_batch(world: World) -> None:
    with world.open(streams=1) as runner:
        list(runner.run_stream([crops(8)]))
        waits, launches = world.count("synchronizes"), world.count("launches")
        next(runner.run_stream([crops(8, seed) for seed in range(3)]))
        assert world.count("synchronizes") - waits == 1
        assert world.count("launches") - launches == 2


@scenario
def a_batchs_array_may_be_overwritten_when_its_result_is_out(world: World) -> None:
    buffers = [np.empty((8, HEIGHT, WIDTH, 3), np.uint8) for _ in range(2)]
    wanted = []

    def batches() -> Any:
        for index in range(6):
            buffers[index % 2][:] = crops(8, index)
            wanted.append(network(buffers[index % 2]))
            yield buffers[index % 2]

    with world.open() as runner:
        for index, vectors in enumerate(runner.run_stream(batches())):
            np.testing.assert_array_equal(vectors, wanted[index])


@scenario
def a_fixed_batch_is_filled_up(world: World) -> None:
    with world.open(world.engine((4, 4, 4))) as runner:
        for count in (1, 4, 6):
            images = crops(count, count)
            np.testing.assert_array_equal(runner.run(images), network(images))
        assert {shape[0] for c in world.contexts for shape in c.shapes} == {4}


@scenario
def pixels_cross_the_bus_as_bytes(world: World) -> None:
    with world.open(streams=1) as runner:
        lane = runner._lanes[0]
        assert lane._host_in.dtype == np.uint8
        assert lane._host_in.nbytes == 8 * HEIGHT * WIDTH * 3


@scenario
def a_thousand_cycles_leave_nothing_behind(world: World) -> None:
    world.reuse_contexts = True  # making a double takes longer than all the rest
    path = world.engine()
    start = world.held()
    for index in range(1000):
        with world.open(path) as runner:
            if index % 50 == 0:
                runner.run(crops(3))
    assert world.held() == start == dict.fromkeys(start, 0)


@scenario
def closing_twice_is_allowed_and_running_after_it_is_not(world: World) -> None:
    from sa_runtime.errors import RunnerError

    runner = world.open()
    runner.close()
    runner.close()
    expect(RunnerError, "the runner is closed; open the model again", runner.run, crops(1))
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def too_little_memory_is_said_and_nothing_stays(world: World) -> None:
    from sa_runtime.tensorrt.device import CudaError

    world.set("memory_limit", 1000, ctypes.c_size_t)
    text = "cuMemAlloc.*failed: out of memory; free memory on the GPU, or build.*--max-batch"
    expect(CudaError, text, world.open)
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def a_lost_context_is_said_once_and_again(world: World) -> None:
    from sa_runtime.errors import RunnerError

    runner = world.open()
    runner.run(crops(2))
    world.set("sticky", 700)
    text = "an illegal memory access was encountered; the GPU's context is lost: start the process"
    expect(RunnerError, text, runner.run, crops(2))
    expect(RunnerError, "the GPU's context was lost earlier", runner.run, crops(2))
    runner.close()


@scenario
def an_engine_that_fails_says_why(world: World) -> None:
    from sa_runtime.errors import RunnerError

    with world.open(graphs=False) as runner:
        world.fail_execution = True
        expect(RunnerError, "TensorRT failed on a batch of 2", runner.run, crops(2))


@scenario
def an_engine_tensorrt_refuses_says_why(world: World) -> None:
    from sa_runtime.errors import RunnerError

    world.refuse = True
    text = "cannot load it: Serialization assertion failed: version tag; build it again on this"
    expect(RunnerError, text, world.open)
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def engines_for_other_machines_are_refused_in_plain_words(world: World) -> None:
    from sa_runtime.errors import ContractError, RunnerError

    other = world.engine(tensorrt_version="10.13.3")
    expect(RunnerError, r"built by TensorRT 10\.13\.3 and this is", world.open, other)
    other = world.engine(compute_capability=89, gpu="NVIDIA L4")
    text = r"built for compute capability 8\.9 \(NVIDIA L4\) and Simulated GPU 0 has .* 9\.0"
    expect(RunnerError, text, world.open, other)
    other = world.engine(engine_sha256="0" * 64)
    expect(ContractError, "not the engine that model.engine.json describes", world.open, other)
    other = world.engine()
    other.with_name("model.engine.json").unlink()
    expect(ContractError, r"no model\.engine\.json beside it", world.open, other)


@scenario
def an_rtx_engine_keeps_what_it_compiled(world: World) -> None:
    import tensorrt_rtx

    world.use(tensorrt_rtx)
    path = world.engine(flavour="tensorrt-rtx", compute_capability=None, gpu="")
    images = crops(5)
    with world.open(path) as runner:
        np.testing.assert_array_equal(runner.run(images), network(images))
        # It records graphs itself; ours stay out of its way.
        assert world.count("graphs") == 0
        engine = world._engine
        config = engine.create_runtime_config.return_value
        assert config.cuda_graph_strategy == tensorrt_rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        engine.create_execution_context.assert_called_with(config)
    assert path.with_name("model.engine.jit").read_bytes() == b"kernels"
    kernels = config.create_runtime_cache.return_value
    assert kernels.deserialize.call_count == 0
    with world.open(path):
        kernels.deserialize.assert_called_once_with(b"kernels")
    config.set_runtime_cache.assert_called_with(kernels)


@scenario
def a_stripped_engine_takes_its_weights_from_its_model(world: World) -> None:
    from sa_runtime.errors import RunnerError
    from sa_runtime.tensorrt.options import BuildOptions, Profile

    options = BuildOptions(profile=Profile(min=1, opt=4, max=8), strip=True)
    path = world.engine(options=options)
    expect(RunnerError, "takes its weights from .*model.onnx, which is missing", world.open, path)
    path.with_suffix(".onnx").write_bytes(b"weights")
    refitter = world.double(world.trt.Refitter)
    parser = world.double(world.trt.OnnxParserRefitter)
    parser.refit_from_file.return_value = refitter.refit_cuda_engine.return_value = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.trt, "Refitter", lambda engine, logger: refitter)
        patch.setattr(world.trt, "OnnxParserRefitter", lambda made, logger: parser)
        with world.open(path) as runner:
            np.testing.assert_array_equal(runner.run(crops(2)), network(crops(2)))
        parser.refit_from_file.assert_called_once_with(str(path.with_suffix(".onnx")))
        refitter.refit_cuda_engine.return_value = False
        expect(RunnerError, r"its weights cannot be taken from .*model\.onnx", world.open, path)


@scenario
def a_gpu_that_is_not_there_is_refused(world: World) -> None:
    from sa_runtime.errors import InputError, RunnerError

    def open_third() -> None:
        world.open(gpu=3)

    def open_three_streams() -> None:
        world.open(streams=3)

    expect(RunnerError, "GPU 3 is not there", open_third)
    expect(InputError, "streams=3: expected 1 or 2", open_three_streams)


@scenario
def the_runner_says_what_it_runs_on(world: World) -> None:
    with world.open() as runner:
        assert runner.device == "cuda:0"
        assert runner.details["gpu"] == "Simulated GPU 0"
        assert runner.details["binding"] == world.binding
        assert runner.label == "tensorrt fp32"


def expect(kind: type[Exception], pattern: str, call: Callable[..., Any], *arguments: Any) -> None:
    """The call raises ``kind`` with a message that matches."""
    with pytest.raises(kind) as caught:
        call(*arguments)
    told = " ".join(str(caught.value).split())
    assert re.search(pattern, told), told


def main(libcuda: str, site: str, binding: str, out: str) -> None:
    """Run every scenario in a world of its own state."""
    sys.path[:0] = [site, str(Path(__file__).parents[3])]
    world = World(Path(libcuda), binding)
    results = {}
    for name, function in SCENARIOS.items():
        import tensorrt

        world.use(tensorrt)
        world.contexts.clear()
        world.refuse = world.fail_execution = world.reuse_contexts = False
        for switch, value in (("fail_capture", 0), ("sticky", 0)):
            world.set(switch, value)
        world.set("memory_limit", 1 << 30, ctypes.c_size_t)
        try:
            function(world)
            results[name] = ""
        except BaseException:
            results[name] = traceback.format_exc()
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
