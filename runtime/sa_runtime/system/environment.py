"""What this machine is: stamped on measurements, and part of what they are remembered by."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sa_runtime.system.gpus import probe

_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""Instruction sets that decide how fast a network runs."""
_PACKAGES = (
    "sa-deploy", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino",
    "torch", "tensorrt", "tensorrt-cu13", "tensorrt-rtx",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """Hardware and software that a measurement depends on.

    Attributes:
        processor: model name.
        cores: number of cores that this process may use.
        flags: instruction sets that matter.
        governor: of the processor's frequency; empty where the system does not say.
        memory_gb: in total.
        gpus: names.
        system: of the operating system.
        python: version.
        versions: of the packages that are installed.
        commit: of the source, with ``+`` where it was changed; empty outside a checkout.
    """

    processor: str
    cores: int
    flags: tuple[str, ...]
    governor: str
    memory_gb: float
    gpus: tuple[str, ...]
    system: str
    python: str
    versions: dict[str, str]
    commit: str

    @property
    def fingerprint(self) -> str:
        """Equal where a measurement of speed may be reused."""
        parts = (self.processor, self.cores, self.flags, self.gpus, sorted(self.versions.items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def this_environment(*, commit: bool = False) -> Environment:
    """Look at the machine; nothing is loaded and no device is opened.

    Args:
        commit: also ask git, which starts a process.

    >>> this_environment().cores >= 1
    True
    """
    info = _cpuinfo()
    return Environment(
        processor=info.get("model name", platform.processor() or platform.machine()),
        cores=cores(),
        flags=_flags(info),
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpus=tuple(gpu.name for gpu in probe().gpus),
        system=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        commit=_commit() if commit else "",
    )


def cores() -> int:
    """How many cores this process may use: its affinity where the system has one, else all.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    first = _text("/proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _flags(info: dict[str, str]) -> tuple[str, ...]:
    present = set(info.get("flags", info.get("Features", "")).split())
    return tuple(flag for flag in _FLAGS if flag in present)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit of the checkout this file lies in; an installed package has none."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return ""
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
