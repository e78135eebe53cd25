"""What the runner must say of engines, and which it must refuse."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.runtime.tensorrt.gpu_registry import expect, scenario
from tests.runtime.tensorrt.simulated_gpu import World, crops, network
from tests.runtime.tensorrt.small_models import RELU, write_model


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
