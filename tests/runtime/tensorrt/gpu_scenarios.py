"""What the runner must do, one scenario a function, on a simulated GPU.

Run in a process of its own, because the driver must be loaded before anything looks for one::

    python -m tests.runtime.tensorrt.gpu_scenarios LIBCUDA STUB_SITE BINDING OUT.json

writes one entry per scenario: "" where it passed, its traceback where not.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tensorrt.simulated_gpu import HEIGHT, WIDTH, World, crops, network
from tests.runtime.tensorrt.small_models import RELU, write_model

SCENARIOS: dict[str, Callable[[World], None]] = {}


def scenario(function: Callable[[World], None]) -> Callable[[World], None]:
    """Collect a scenario under its name."""
    SCENARIOS[function.__name__] = function
    return function


def expect(kind: type[Exception], pattern: str, call: Callable[..., Any], *arguments: Any) -> None:
    """The call raises ``kind`` with a message that matches."""
    with pytest.raises(kind) as caught:
        call(*arguments)
    told = " ".join(str(caught.value).split())
    assert re.search(pattern, told), told


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
def streams_and_calls_of_one_runner_mix_in_one_thread(world: World) -> None:
    batches = [crops(8, seed) for seed in range(5)]
    with world.open() as runner:
        streams = [runner.run_stream(batches) for _ in range(2)]
        for images, *vectors in zip(batches, *streams, strict=True):
            for found in (*vectors, runner.run(images)):
                np.testing.assert_array_equal(found, network(images))
        # Two a stream, and one for the call between.
        assert len(world.contexts) == 5
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def every_thread_has_lanes_of_its_own(world: World) -> None:
    batches = [crops(1 + seed % 8, seed) for seed in range(40)]
    wanted = [network(batch) for batch in batches]
    with world.open() as runner, ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(lambda: [runner.run(batch) for batch in batches]) for _ in range(4)]
        calls += [threads.submit(lambda: list(runner.run_stream(batches))) for _ in range(4)]
        for call in calls:
            for found, vectors in zip(call.result(), wanted, strict=True):
                np.testing.assert_array_equal(found, vectors)
        assert len(world.contexts) <= 8
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def a_stream_of_a_closed_runner_ends_with_an_error(world: World) -> None:
    from sa_runtime.errors import RunnerError

    runner = world.open()
    results = runner.run_stream([crops(8, seed) for seed in range(5)])
    next(results)
    runner.close()
    assert world.held() == dict.fromkeys(world.held(), 0)
    expect(RunnerError, "the runner is closed; open the model again", next, results)


@scenario
def a_stream_that_is_left_early_leaves_the_runner_usable(world: World) -> None:
    with world.open() as runner:
        results = runner.run_stream([crops(8, seed) for seed in range(5)])
        next(results)
        results.close()
        for count in (3, 17):
            np.testing.assert_array_equal(runner.run(crops(count)), network(crops(count)))
        results = runner.run_stream([crops(8, seed) for seed in range(5)])
        next(results)
    assert world.held() == dict.fromkeys(world.held(), 0)


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
        slot = runner._slots.made[0]
        assert slot._host_in.dtype == np.uint8
        assert slot._host_in.nbytes == 8 * HEIGHT * WIDTH * 3


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
    text = "cuMemAlloc.*failed: out of memory; free memory on the GPU, or build.*`max_batch`"
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
def a_lost_context_is_not_hidden_by_closing(world: World) -> None:
    from sa_runtime.tensorrt.device import CudaError

    def run() -> None:
        with world.open() as runner:
            runner.run(crops(2))
            world.set("sticky", 700)
            runner.run(crops(2))  # closing fails too, with the same error, and is not heard of

    expect(CudaError, "^CUDA: cuGraphLaunch failed: an illegal memory", run)


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

    other = world.engine(tensorrt_version="9.0.0")
    expect(RunnerError, r"built by TensorRT 9\.0\.0 and this is", world.open, other)
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
    world.set("capability", 89)
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
def an_rtx_engine_is_refused_where_tensorrt_rtx_does_not_run(world: World) -> None:
    import tensorrt_rtx

    from sa_runtime.errors import RunnerError

    world.use(tensorrt_rtx)
    path = world.engine(flavour="tensorrt-rtx", compute_capability=None, gpu="")
    text = (
        r"TensorRT-RTX runs on compute capability 8\.0, 8\.6, 8\.9 and from 12\.0 on, and "
        r"Simulated GPU 0 has 9\.0; build it with TensorRT itself: .* --flavour tensorrt"
    )
    expect(RunnerError, text, world.open, path)
    assert world.held() == dict.fromkeys(world.held(), 0)


@scenario
def a_stripped_engine_takes_its_weights_from_its_model(world: World) -> None:
    from sa_runtime.errors import RunnerError
    from sa_runtime.tensorrt.graph import read_graph
    from sa_runtime.tensorrt.options import BuildOptions, Profile

    options = BuildOptions(profile=Profile(min=1, opt=4, max=8), strip=True)
    path = world.engine(options=options)
    model = path.with_suffix(".onnx")
    expect(RunnerError, "takes its weights from .*model.onnx, which is missing", world.open, path)
    write_model(model, RELU)
    expect(RunnerError, "model.onnx is not the ONNX file it was built from", world.open, path)
    path = world.engine(options=options, onnx_sha256=read_graph(model).sha256)
    shutil.move(model, path.with_suffix(".onnx"))
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
        world.open(device="cuda:3")

    def open_three_streams() -> None:
        world.open(streams=3)

    def open_processor() -> None:
        world.open(device="CPU")

    expect(RunnerError, "GPU 3 is not there", open_third)
    expect(InputError, "streams=3: expected 1 or 2", open_three_streams)
    expect(InputError, "device='CPU': .* expected cuda or cuda:1", open_processor)


@scenario
def the_runner_says_what_it_runs_on(world: World) -> None:
    with world.open() as runner:
        assert runner.device == "cuda:0"
        assert runner.details["gpu"] == "Simulated GPU 0"
        assert runner.details["binding"] == world.binding
        assert runner.label == "tensorrt fp32"


def main(libcuda: str, site: str, binding: str, out: str) -> None:
    """Run every scenario in a world of its own state."""
    sys.path.insert(0, site)
    world = World(Path(libcuda), binding)
    results = {}
    for name, function in SCENARIOS.items():
        import tensorrt

        world.use(tensorrt)
        world.contexts.clear()
        world.refuse = world.fail_execution = world.reuse_contexts = False
        world.reset()
        try:
            function(world)
            results[name] = ""
        except BaseException:
            results[name] = traceback.format_exc()
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
