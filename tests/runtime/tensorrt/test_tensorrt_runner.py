"""The runner and the device layer, end to end on a simulated GPU (see ``gpu_scenarios.py``)."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sa_runtime.errors import InputError, MissingPackageError
from sa_runtime.runners.tensorrt import TensorRTRunner
from sa_runtime.system.gpus import probe
from sa_runtime.tensorrt import device
from sa_runtime.tensorrt.device import installed, open_device
from sa_runtime.tensorrt.execution import bucket
from tests.runtime.tensorrt.gpu_scenarios import SCENARIOS

HERE = Path(__file__).parent


def unused_functions() -> list[str]:
    """Definitions of what pycuda names of the driver and the simulated one does not have.

    pycuda's extension loads only where the driver has every function it might ever call.
    """
    if not installed("pycuda"):
        return []
    spec = importlib.util.find_spec("pycuda._driver")
    assert spec is not None
    assert spec.origin is not None
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", spec.origin], capture_output=True, text=True, check=True
    ).stdout
    wanted = {line.split()[-1] for line in listing.splitlines()}
    there = (HERE / "simulated_cuda.c").read_text()
    missing = sorted(name for name in wanted if re.match("cu[A-Z]", name) and name not in there)
    return [f"CUresult {name}(void) {{ return 801; }}" for name in missing]


@pytest.fixture(scope="session")
def simulated_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``libcuda.so.1``: ``simulated_cuda.c``, its signatures checked against NVIDIA's header."""
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        pytest.skip("triton, which brings NVIDIA's cuda.h, is not installed")
    header = Path(triton.origin).parent / "backends" / "nvidia" / "include"
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    unused = library.with_name("unused.c")
    unused.write_text("typedef int CUresult;\n" + "\n".join(unused_functions()))
    command = ["gcc", "-Wall", "-Werror", f"-I{header}", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libcuda.so.1", "-o", str(library)]
    sources = [str(HERE / "simulated_cuda.c"), str(unused)]
    subprocess.run([*command, *sources, "-ldl"], check=True)
    return library


Simulate = Callable[[str], dict[str, str]]


@pytest.fixture(scope="session")
def simulate(
    simulated_driver: Path, stub_site: Path, tmp_path_factory: pytest.TempPathFactory
) -> Simulate:
    """Run every scenario with a CUDA binding; tracebacks by name, empty where it passed."""

    def run(binding: str) -> dict[str, str]:
        if not installed(binding):
            pytest.skip(f"{binding} is not installed")
        out = tmp_path_factory.mktemp("scenarios") / "out.json"
        module = "tests.runtime.tensorrt.gpu_scenarios"
        arguments = [str(simulated_driver), str(stub_site), binding, str(out)]
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, check=True, timeout=120, cwd=HERE.parents[2])
        results: dict[str, str] = json.loads(out.read_text())
        return results

    return run


@pytest.fixture(scope="session")
def outcomes(simulate: Simulate) -> dict[str, str]:
    """What happened with cuda-bindings."""
    return simulate("cuda-bindings")


@pytest.mark.parametrize("name", SCENARIOS)
def test_on_a_simulated_gpu(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "", outcomes[name]


def test_pycuda_passes_the_same_scenarios(simulate: Simulate) -> None:
    failed = {name: trace for name, trace in simulate("pycuda").items() if trace}
    assert not failed, "\n".join(failed.values())


def test_buckets_are_few_and_waste_little() -> None:
    for most in (1, 8, 32, 64, 100):
        sizes = {bucket(n, 1, most) for n in range(1, most + 1)}
        assert len(sizes) <= 8 + 4 * max(0, most.bit_length() - 3)
        for n in range(1, most + 1):
            size = bucket(n, 1, most)
            assert n <= size <= min(most, max(n, 1.25 * n))


def test_the_driver_is_asked_without_any_package(simulated_driver: Path) -> None:
    script = (
        "import ctypes, sys; ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)\n"
        "from sa_runtime.system.gpus import probe\n"
        "driver = ctypes.CDLL('libcuda.so.1')\n"
        "print(probe())\n"
        "ctypes.c_int.in_dll(driver, 'sim_init_status').value = 100\n"
        "print(probe().problem)\n"
        "assert not {'cuda', 'pycuda', 'tensorrt'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, simulated_driver], capture_output=True, text=True, check=True
    )
    found, problem = done.stdout.splitlines()
    assert "Gpu(index=0, name='Simulated GPU 0', compute_capability=90" in found
    assert "cuda_version=13000" in found
    assert problem == "the driver offers no GPU: no CUDA-capable device is detected"


def test_an_onnx_file_needs_a_cache() -> None:
    with pytest.raises(InputError, match=r"build one with `sa-deploy build .*`cache=DIR`"):
        TensorRTRunner(Path("model.onnx"))


def test_bindings_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "installed", lambda binding: False)
    text = "needs pycuda or cuda-bindings, which is not installed.*pip install cuda-bindings"
    with pytest.raises(MissingPackageError, match=text):
        open_device()
    with pytest.raises(InputError, match="choose from pycuda, cuda-bindings"):
        open_device(binding="cupy")


@pytest.mark.skipif(bool(probe().gpus), reason="this machine has a GPU")
@pytest.mark.skipif(not installed("cuda-bindings"), reason="cuda-bindings is not installed")
def test_without_a_driver_the_device_says_so() -> None:
    with pytest.raises(device.CudaError, match=r"CUDA: cuInit failed: .*; look at `sa-deploy doc"):
        open_device(binding="cuda-bindings")
