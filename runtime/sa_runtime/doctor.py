"""What this machine can run, what it lacks for the rest, and the command that fixes each gap."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from sa_runtime.runners.onnxruntime import preload
from sa_runtime.system.environment import Environment, this_environment
from sa_runtime.system.extras import imported
from sa_runtime.system.gpus import Machine, probe
from sa_runtime.tensorrt.device import BINDINGS, installed
from sa_runtime.tensorrt.flavour import INSTALL, rtx_obstacle

Status = Literal["ok", "missing", "broken", "not here"]
"""``missing``: could be had by the fix. ``not here``: this machine cannot have it, which is no
fault."""

_BF16 = ("amx_bf16", "avx512_bf16", "bf16")
_INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_DRIVERS = "https://www.nvidia.com/drivers"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        status: see :data:`Status`.
        detail: what was found.
        fix: command that fixes it; empty where nothing needs mending.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at this machine; packages are imported, no device is opened.

    >>> examine()[0].name
    'processor'
    """
    machine, environment = probe(), this_environment()
    return [
        _processor(environment),
        _memory(environment),
        _driver(machine),
        *_gpus(machine),
        *_openvino(),
        *_onnxruntime(machine),
        _tensorrt(machine),
        _tensorrt_rtx(machine),
        _plugin(machine),
        _binding(machine),
        _versions(machine, environment),
        *_package("torch", "train", "train and export"),
        *_package("onnx", "cpu", "reads ONNX files"),
    ]


def _processor(environment: Environment) -> Finding:
    flags = set(environment.flags)
    able = [
        f"{name} in hardware ({', '.join(sorted(flags & set(wanted)))})"
        if flags & set(wanted)
        else f"no {name} instructions"
        for name, wanted in (("bf16", _BF16), ("int8", _INT8))
    ]
    detail = f"{environment.processor}, {environment.cores} cores; {', '.join(able)}"
    if flags:
        detail += f"; instruction sets {', '.join(environment.flags)}"
    return Finding(name="processor", status="ok", detail=detail)


def _memory(environment: Environment) -> Finding:
    return Finding(name="memory", status="ok", detail=f"{environment.memory_gb} GiB")


def _driver(machine: Machine) -> Finding:
    if machine.cuda_version is None:
        if Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists():
            return Finding(
                name="NVIDIA driver",
                status="broken",
                detail="the kernel module is loaded, libcuda.so.1 is not visible (in a container?)",
                fix="docker run --gpus all ... with the NVIDIA Container Toolkit",
            )
        return Finding(
            name="NVIDIA driver",
            status="not here",
            detail=f"{machine.problem}; where there is a GPU, install its driver",
        )
    found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", _text(_DRIVER_VERSION))
    number = f"{found[1]}, " if found else ""
    detail = f"{number}serves CUDA up to {_cuda(machine.cuda_version)}"
    return Finding(name="NVIDIA driver", status="ok", detail=detail)


def _gpus(machine: Machine) -> list[Finding]:
    if not machine.gpus:
        broken = machine.cuda_version is not None
        return [
            Finding(
                name="GPU",
                status="broken" if broken else "not here",
                detail=machine.problem,
                fix="unset CUDA_VISIBLE_DEVICES; nvidia-smi" if broken else "",
            )
        ]
    return [
        Finding(
            name=f"GPU {gpu.index}",
            status="ok",
            detail=f"{gpu.name}, compute capability {gpu.compute_capability / 10}, "
            f"{gpu.memory_bytes / 2**30:.1f} GiB",
        )
        for gpu in machine.gpus
    ]


def _openvino() -> list[Finding]:
    name, extra = "OpenVINO", "pip install 'sa-deploy[cpu]'"
    package, finding = _imported("openvino", name, extra)
    if package is None:
        return [finding]
    core = package.Core()
    devices = []
    for device in core.available_devices:
        label = core.get_property(device, "FULL_DEVICE_NAME")
        able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        devices.append(f"{device} ({label.strip()}: {', '.join(able)})")
    detail = f"{version('openvino')}; {'; '.join(devices)}"
    return [Finding(name=name, status="ok", detail=detail)]


def _onnxruntime(machine: Machine) -> list[Finding]:
    name, extra = "ONNX Runtime", "pip install 'sa-deploy[cpu]'"
    package, finding = _imported("onnxruntime", name, extra)
    if package is None:
        return [finding]
    offered = package.get_available_providers()
    detail = f"{package.__version__}; {', '.join(offered)}"
    findings = [Finding(name=name, status="ok", detail=detail)]
    for provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        if not machine.gpus:
            finding = Finding(name=provider, status="not here", detail="needs an NVIDIA GPU")
        elif provider in offered:
            finding = _provider(package, provider)
        else:
            finding = Finding(
                name=provider,
                status="missing",
                detail="this ONNX Runtime is built for processors",
                fix="pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'",
            )
        findings.append(finding)
    return findings


def _provider(package: Any, provider: str) -> Finding:
    """Whether a provider that ONNX Runtime offers finds its libraries: it offers it without too."""
    preload(package)
    folder = Path(package.__file__).parent / "capi"
    name = provider.removesuffix("ExecutionProvider").lower()
    try:
        shared = "libonnxruntime_providers_shared.so"
        ctypes.CDLL(str(folder / shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{name}.so"))
    except OSError as exc:
        needed = re.search(r"libnv(?:infer|onnxparser)\w*\.so\.(\d+)", str(exc))
        fix = (
            f"pip install 'tensorrt-cu13=={needed[1]}.*'"
            if needed
            else "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
        return Finding(name=provider, status="broken", detail=f"does not load: {exc}", fix=fix)
    return Finding(name=provider, status="ok", detail="loads")


def _tensorrt(machine: Machine) -> Finding:
    name = "TensorRT"
    if not machine.gpus:
        return Finding(name=name, status="not here", detail="needs an NVIDIA GPU to build and run")
    package, finding = _imported("tensorrt", name, INSTALL["tensorrt"])
    if package is None:
        return finding
    return Finding(name=name, status="ok", detail=f"{package.__version__}; builds and runs engines")


def _tensorrt_rtx(machine: Machine) -> Finding:
    name = "TensorRT-RTX"
    package, finding = _imported("tensorrt_rtx", name, INSTALL["tensorrt-rtx"])
    if package is None:
        return finding
    if machine.gpus and (reason := rtx_obstacle(machine.gpus[0])):
        detail = f"{package.__version__}; builds engines for other machines; {reason}"
        return Finding(name=name, status="not here", detail=detail)
    able = "builds and runs engines" if machine.gpus else "builds engines; running them needs a GPU"
    return Finding(name=name, status="ok", detail=f"{package.__version__}; {able}")


def _plugin(machine: Machine) -> Finding:
    name = "fused attention pool"
    triton, finding = _imported("triton", name, "pip install triton")
    if not machine.gpus:
        compiles = f"; Triton {triton.__version__} compiles its kernel here" if triton else ""
        return Finding(
            name=name, status="not here", detail=f"is embedded where TensorRT builds{compiles}"
        )
    if triton is None:
        return finding
    trt, finding = _imported("tensorrt", name, INSTALL["tensorrt"])
    if trt is None:
        return finding
    if not hasattr(trt, "QuickPluginCreationRequest"):
        return Finding(
            name=name,
            status="missing",
            detail=f"TensorRT {trt.__version__} cannot embed a kernel of a Python plugin",
            fix="pip install -U 'tensorrt-cu13>=10.9'",
        )
    plugins, finding = _imported("tensorrt.plugin", name, INSTALL["tensorrt"])
    if plugins is None:
        return finding
    return Finding(
        name=name, status="ok", detail=f"tensorrt.plugin and Triton {triton.__version__}"
    )


def _binding(machine: Machine) -> Finding:
    name, there = "CUDA from Python", [binding for binding in BINDINGS if installed(binding)]
    if there:
        detail = f"{there[0]}{_version_of(there[0])}"
        detail += f", {there[1]} is there too" if len(there) > 1 else ""
        return Finding(name=name, status="ok", detail=detail)
    if not machine.gpus:
        return Finding(name=name, status="not here", detail="needs an NVIDIA GPU")
    return Finding(
        name=name,
        status="missing",
        detail="neither pycuda nor cuda-bindings is installed; engines need one of them",
        fix="pip install cuda-bindings",
    )


def _versions(machine: Machine, environment: Environment) -> Finding:
    """Packages that contradict each other or the driver."""
    name = "versions"
    have = environment.versions
    if "onnxruntime" in have and "onnxruntime-gpu" in have:
        return Finding(
            name=name,
            status="broken",
            detail="onnxruntime and onnxruntime-gpu overwrite each other's files",
            fix="pip uninstall -y onnxruntime onnxruntime-gpu; pip install onnxruntime-gpu",
        )
    built_for = _tensorrt_cuda()
    driver = machine.cuda_version
    if built_for is not None and driver is not None and machine.gpus and driver // 1000 < built_for:
        return Finding(
            name=name,
            status="broken",
            detail=f"TensorRT is built for CUDA {built_for}, the driver serves {_cuda(driver)}",
            fix=f"pip install tensorrt-cu{driver // 1000}, or a newer driver from {_DRIVERS}",
        )
    return Finding(name=name, status="ok", detail="nothing contradicts anything else")


def _package(name: str, extra: str, purpose: str) -> list[Finding]:
    """A package by its metadata alone: it is not imported."""
    try:
        return [Finding(name=name, status="ok", detail=f"{version(name)}; {purpose}")]
    except PackageNotFoundError:
        fix = f"pip install 'sa-deploy[{extra}]'"
        return [Finding(name=name, status="missing", detail=purpose, fix=fix)]


def _imported(module: str, name: str, fix: str) -> tuple[Any, Finding]:
    """The module, or ``None`` and why there is none."""
    try:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(module)
    except ModuleNotFoundError:
        return None, Finding(
            name=name, status="missing", detail=f"{module} is not installed", fix=fix
        )
    try:
        return imported(module), Finding(name=name, status="ok", detail="")
    except Exception as exc:  # whatever a broken installation raises is what is looked for
        detail = f"{module} is installed and does not load: {exc}"
        again = re.sub(r"^pip install", "pip install --force-reinstall", fix)
        return None, Finding(name=name, status="broken", detail=detail, fix=again)


def _tensorrt_cuda() -> int | None:
    """Major version of the CUDA that the installed TensorRT is built for."""
    for major in (12, 13):
        try:
            version(f"tensorrt-cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return None


def _version_of(package: str) -> str:
    try:
        return f" {version(package)}"
    except PackageNotFoundError:
        return ""


def _cuda(number: int) -> str:
    """The driver's number for people.

    >>> _cuda(13000), _cuda(12080)
    ('13.0', '12.8')
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def fixes(findings: Iterable[Finding]) -> list[str]:
    """The commands that fix what is missing or broken, each once, in order."""
    return list(dict.fromkeys(finding.fix for finding in findings if finding.fix))
