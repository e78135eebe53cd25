"""What only a GPU can prove. Run with ``pytest -m gpu`` where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.runners.onnxruntime import OnnxRuntimeRunner
from sa_runtime.runners.tensorrt import TensorRTRunner
from sa_runtime.system.gpus import probe
from sa_runtime.tensorrt.device import BINDINGS, installed, open_device
from sa_runtime.tensorrt.engines import BuildContext, build_engine, cached_engine
from sa_runtime.tensorrt.flavour import FLAVOURS, FlavourName, load_flavour, rtx_obstacle
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions, Profile

MACHINE = probe()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not MACHINE.gpus, reason=f"needs an NVIDIA GPU: {MACHINE.problem}"),
]
# Cosine of the worst crop to ONNX Runtime on the processor.
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999}

flavours = pytest.mark.parametrize("flavour", FLAVOURS)


@pytest.fixture(scope="session")
def crops() -> NDArray[np.uint8]:
    """Crops of the synthetic people, (64, 128, 64, 3) uint8 BGR."""
    from sa_export.crop_sets import validation_crops

    return validation_crops(None, height=128, width=64).images[:64]


def require(flavour: FlavourName) -> None:
    """Skip where a flavour is not installed or does not run on this GPU."""
    pytest.importorskip(flavour.replace("-", "_"), reason=f"{flavour} is not installed")
    if flavour == "tensorrt-rtx" and (reason := rtx_obstacle(MACHINE.gpus[0])):
        pytest.skip(reason)


def build(model: Path, out: Path, flavour: FlavourName = "tensorrt", **options: object) -> Path:
    """An engine for batches of 1 to 16."""
    require(flavour)
    asked = BuildOptions(profile=Profile(min=1, opt=8, max=16), **options)  # type: ignore[arg-type]
    context = BuildContext(flavour=load_flavour(flavour), machine=MACHINE)
    build_engine(read_graph(model), out, asked, context)
    return out


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    products: NDArray[np.float32] = np.sum(ours * theirs, axis=1)
    return products


def ranking(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """For every crop the others by similarity."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("flavour", "plugin"), [("tensorrt", True), ("tensorrt", False), ("tensorrt-rtx", False)]
)
def test_an_engine_retrieves_as_its_onnx_file_does(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    precision: str,
    flavour: FlavourName,
    plugin: bool,
) -> None:
    model = exported_models[precision]
    engine = build(model, tmp_path / "m.engine", flavour, plugin=plugin)
    with TensorRTRunner(engine) as runner, OnnxRuntimeRunner(model) as reference:
        assert (runner.info.plugin_nodes > 0) == plugin
        ours, theirs = runner.run(crops), reference.run(crops)
    assert cosines(ours, theirs).min() > LEAST_COSINE[precision]
    assert (ranking(ours)[:, 0] == ranking(theirs)[:, 0]).mean() >= 0.98


@flavours
def test_an_int8_engine_runs(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
) -> None:
    engine = build(exported_models["int8"], tmp_path / "m.engine", flavour)
    with TensorRTRunner(engine) as runner:
        vectors = runner.run(crops)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


@flavours
@pytest.mark.parametrize("binding", list(BINDINGS))
def test_graphs_streams_and_batch_sizes_change_nothing(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    binding: str,
    flavour: FlavourName,
) -> None:
    if not installed(binding):
        pytest.skip(f"{binding} is not installed")
    engine = build(exported_models["fp32"], tmp_path / "m.engine", flavour)
    with TensorRTRunner(engine, graphs=False, streams=1, binding=binding) as plain:
        wanted = plain.run(crops)
    with TensorRTRunner(engine, binding=binding) as runner:
        for count in (0, 1, 3, 16, 17, 64):
            got = runner.run(crops[:count])
            assert got.shape == (count, wanted.shape[1])
            if count:
                assert cosines(got, wanted[:count]).min() > 0.99999
        streamed = list(runner.run_stream(np.array_split(crops, 7)))
        assert cosines(np.concatenate(streamed), wanted).min() > 0.99999


def test_an_engine_needs_neither_triton_nor_torch(
    exported_models: dict[str, Path], crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    engine = build(exported_models["fp16"], tmp_path / "m.engine", plugin=True)
    np.save(tmp_path / "crops.npy", crops[:4])
    code = (
        "import sys\n"
        "sys.modules['triton'] = sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from sa_runtime.runners.tensorrt import TensorRTRunner\n"
        "with TensorRTRunner(Path(sys.argv[1])) as runner:\n"
        "    print(runner.run(np.load(sys.argv[2])).shape)\n"
    )
    command = [sys.executable, "-c", code, str(engine), str(tmp_path / "crops.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 1536)"


@pytest.mark.slow
@flavours
def test_a_thousand_cycles_leave_no_device_memory_behind(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
) -> None:
    engine = build(exported_models["fp16"], tmp_path / "m.engine", flavour)
    device = open_device(0)
    try:
        with device.active():
            for index in range(1000):
                with TensorRTRunner(engine) as runner:
                    runner.run(crops[:3])
                if index == 9:
                    before = device.free_memory()
            lost = before - device.free_memory()
    finally:
        device.close()
    assert lost < 16 << 20


@pytest.mark.slow
@flavours
def test_changing_batch_sizes_leave_no_device_memory_behind(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
) -> None:
    # TensorRT 11.1 and 11.2 leak a module each time an embedded kernel's shape changes
    # (NVIDIA/TensorRT #4849); replayed graphs never change it.
    engine = build(exported_models["fp16"], tmp_path / "m.engine", flavour)
    device = open_device(0)
    try:
        with device.active(), TensorRTRunner(engine) as runner:
            for round_ in range(2000):
                runner.run(crops[: 1 + round_ % 16])
                if round_ == 50:
                    before = device.free_memory()
            lost = before - device.free_memory()
    finally:
        device.close()
    assert lost < 16 << 20


@pytest.mark.parametrize(
    ("flavour", "options"),
    [
        ("tensorrt", {"hardware_compat": "ampere-plus"}),
        ("tensorrt", {"version_compat": True}),
        ("tensorrt", {"strip": True}),
        ("tensorrt-rtx", {"hardware_compat": "same-cc"}),
        ("tensorrt-rtx", {"strip": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_engines_of_every_kind_load_and_run(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
    options: dict[str, Any],
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(exported_models["fp16"].read_bytes())
    engine = build(model, tmp_path / "m.engine", flavour, **options)
    with TensorRTRunner(engine) as runner, OnnxRuntimeRunner(model) as reference:
        assert cosines(runner.run(crops[:5]), reference.run(crops[:5])).min() > 0.999


def test_an_rtx_engine_runs_and_keeps_what_it_compiled(
    exported_models: dict[str, Path], crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = exported_models["fp16"]
    engine = build(model, tmp_path / "m.engine", "tensorrt-rtx")
    for _ in range(2):
        with TensorRTRunner(engine) as runner, OnnxRuntimeRunner(model) as reference:
            assert cosines(runner.run(crops[:5]), reference.run(crops[:5])).min() > 0.999
    assert engine.with_name("m.engine.jit").stat().st_size > 0


@flavours
def test_the_cache_serves_the_runner(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
) -> None:
    require(flavour)
    for _ in range(2):
        with TensorRTRunner(exported_models["fp16"], cache=tmp_path, flavour=flavour) as runner:
            assert runner.run(crops[:3]).shape == (3, 1536)
    assert len(list(tmp_path.glob("*.engine"))) == 1
    options = BuildOptions(profile=Profile(min=1, opt=16, max=32))
    context = BuildContext(flavour=load_flavour(flavour), machine=MACHINE)
    graph = read_graph(exported_models["fp16"])
    assert cached_engine(graph, tmp_path, options, context)[0] in tmp_path.iterdir()


LOST = """
import sys
from pathlib import Path
import numpy as np
from sa_runtime.errors import RunnerError
from sa_runtime.runners.tensorrt import TensorRTRunner

runner = TensorRTRunner(Path(sys.argv[1]), binding="cuda-bindings")
images = np.load(sys.argv[2])
runner.run(images)
# As a lost context comes about: something else in the process reads where nothing is.
from sa_runtime.tensorrt.ptx import kernel_from_pool
from sa_runtime.tensorrt.tactics import Pool
from tests.runtime.tensorrt.test_kernel_on_gpu import Gpu, MACHINE, launched

pool = Pool(channels=512, height=8, width=4, parts=1, normalize="sum", element="fp32")
kernel = kernel_from_pool(pool, 2, MACHINE.gpus[0].compute_capability)
with runner._device.active():
    Gpu(runner._device).loaded(launched(kernel, 2, batch=1)).__enter__()((16, 16), 0)
for _ in range(2):
    try:
        runner.run(images)
    except RunnerError as error:
        print(error)
runner.close()
print("closed")
"""


@flavours
def test_a_lost_context_is_said_and_closing_is_quiet(
    exported_models: dict[str, Path],
    crops: NDArray[np.uint8],
    tmp_path: Path,
    flavour: FlavourName,
) -> None:
    engine = build(exported_models["fp16"], tmp_path / "m.engine", flavour)
    np.save(tmp_path / "crops.npy", crops[:4])
    command = [sys.executable, "-c", LOST, str(engine), str(tmp_path / "crops.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert "illegal memory access" in lines[0]
    assert "the GPU's context was lost earlier" in lines[1]
    assert lines[2] == "closed"
