"""What the runner must do with batches, streams, threads and memory on a GPU."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.runtime.tensorrt.gpu_registry import expect, scenario
from tests.runtime.tensorrt.simulated_gpu import HEIGHT, WIDTH, World, crops, network


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
