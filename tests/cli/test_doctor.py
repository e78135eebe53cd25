"""``sa-deploy doctor`` tells the truth about this machine, and about machines it is told of."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from sa_runtime import doctor
from sa_runtime.doctor import Finding, examine, fixes
from sa_runtime.system.environment import this_environment
from sa_runtime.system.gpus import Gpu, Machine

H100 = Gpu(index=0, name="NVIDIA H100 80GB HBM3", compute_capability=90, memory_bytes=80 << 30)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def on_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an H100 and a driver of CUDA 12.8; the packages are this machine's."""
    machine = Machine(cuda_version=12080, gpus=(H100,), problem="")
    monkeypatch.setattr(doctor, "probe", lambda: machine)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, package=None: None if name in modules else plain(name, package),
    )


def test_it_agrees_with_the_system_and_the_packages() -> None:
    found = by_name(examine())
    flags = Path("/proc/cpuinfo").read_text()
    for flag in ("avx512_bf16", "amx_bf16", "avx512_vnni"):
        assert (flag in found["processor"].detail) == (f" {flag} " in flags), flag
    int8 = {"amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"} & set(flags.split())
    assert ("no int8 instructions" in found["processor"].detail) == (not int8)
    import onnxruntime
    import openvino

    assert all(p in found["ONNX Runtime"].detail for p in onnxruntime.get_available_providers())
    assert all(d in found["OpenVINO"].detail for d in openvino.Core().available_devices)
    assert version("torch") in found["torch"].detail


def test_torch_is_not_loaded_to_look_at_it() -> None:
    code = "import sys\nfrom sa_runtime.doctor import examine\nexamine()\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_machine_without_a_gpu_has_no_fault() -> None:
    found = by_name(examine())
    if found["GPU"].status != "not here":
        pytest.skip("this machine has a GPU, or a driver without one")
    assert {f.status for f in found.values()} <= {"ok", "not here"}
    assert "running them needs a GPU" in found["TensorRT-RTX"].detail
    assert fixes(examine()) == []


def test_a_gpu_shows_what_is_missing_for_it(on_h100: None) -> None:
    found = by_name(examine())
    assert "NVIDIA H100 80GB HBM3, compute capability 9.0, 80.0 GiB" in found["GPU 0"].detail
    assert "serves CUDA up to 12.8" in found["NVIDIA driver"].detail
    if importlib.util.find_spec("tensorrt") is None:
        assert found["TensorRT"].status == "missing"
        assert found["TensorRT"].fix == "pip install 'sa-deploy[gpu]'"
    wanted = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert found["CUDAExecutionProvider"].fix.endswith(wanted)


@pytest.mark.parametrize(
    ("library", "fix"),
    [
        ("libnvinfer.so.10", "pip install 'tensorrt-cu13==10.*'"),
        ("libcublas.so.99", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("", ""),
    ],
)
def test_a_provider_without_its_libraries_is_broken_though_offered(
    on_h100: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str, fix: str
) -> None:
    import onnxruntime

    needs = []
    if library:
        compile_library(tmp_path / library)
        needs = [str(tmp_path / library)]
    capi = tmp_path / "capi"
    capi.mkdir()
    for name in ("shared", "cuda", "tensorrt"):
        compile_library(capi / f"libonnxruntime_providers_{name}.so", *needs)
    if library:
        (tmp_path / library).unlink()
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    finding = by_name(examine())["TensorrtExecutionProvider"]
    assert (finding.status, finding.fix) == ("broken" if library else "ok", fix)
    assert not library or f"does not load: {library}: cannot open" in finding.detail


def compile_library(path: Path, *needs: str) -> None:
    """A shared library without content."""
    command = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}"]
    source = ["-x", "c", "/dev/null", "-x", "none"]
    subprocess.run([*command, "-o", path, *source, *needs], check=True)


@pytest.mark.parametrize(
    ("module", "name", "fix"),
    [
        ("openvino", "OpenVINO", "pip install 'sa-deploy[cpu]'"),
        ("onnxruntime", "ONNX Runtime", "pip install 'sa-deploy[cpu]'"),
        ("tensorrt_rtx", "TensorRT-RTX", "pip install tensorrt-rtx"),
    ],
)
def test_a_package_that_is_not_there_is_mended_by_a_command(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, fix: str
) -> None:
    without(monkeypatch, module)
    finding = by_name(examine())[name]
    assert (finding.status, finding.fix) == ("missing", fix)
    assert finding.detail == f"{module} is not installed"
    assert fix in fixes(examine())


def test_a_package_that_does_not_load_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx", raising=False)
    finding = by_name(examine())["TensorRT-RTX"]
    assert finding.status == "broken"
    assert "does not load: libcudart.so.13: cannot open" in finding.detail
    assert finding.fix == "pip install --force-reinstall tensorrt-rtx"


def test_a_tensorrt_newer_than_the_driver_is_a_contradiction(
    on_h100: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_tensorrt_cuda", lambda: 13)
    finding = by_name(examine())["versions"]
    assert finding.status == "broken"
    assert finding.detail == "TensorRT is built for CUDA 13, the driver serves 12.8"
    assert finding.fix.startswith("pip install tensorrt-cu12, or a newer driver")


def test_two_onnxruntimes_are_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = this_environment()
    environment.versions["onnxruntime"] = environment.versions["onnxruntime-gpu"] = "1.20"
    monkeypatch.setattr(doctor, "this_environment", lambda: environment)
    assert "overwrite each other's files" in by_name(examine())["versions"].detail


def test_engines_need_a_way_to_cuda(on_h100: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda binding: False)
    finding = by_name(examine())["CUDA from Python"]
    assert finding.status == "missing"
    assert "pip install cuda-bindings" in finding.fix


def test_the_command_prints_a_table_and_json() -> None:
    table, plain = (
        subprocess.run(
            [sys.executable, "-m", "sa_deploy", "doctor", *options],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for options in ([], ["--json"])
    )
    assert "OpenVINO" in table
    result = json.loads(plain)
    assert [item["name"] for item in result["findings"]] == [f.name for f in examine()]
    assert set(result["findings"][0]) == {"name", "status", "detail", "fix"}
    assert result["mends"] == fixes(examine())


def test_extras_are_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from sa_deploy.output import print_table

    print_table("t", ("what", "fix"), [("x", "pip install 'sa-deploy[gpu]'")], figures=False)
    assert "sa-deploy[gpu]" in capsys.readouterr().out


@pytest.mark.usefixtures("on_h100")
def test_tensorrt_rtx_is_for_other_machines_on_an_h100() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    finding = by_name(examine())["TensorRT-RTX"]
    assert finding.status == "not here"
    assert "builds engines for other machines; TensorRT-RTX runs on compute cap" in finding.detail
    assert "NVIDIA H100 80GB HBM3 has 9.0" in finding.detail
