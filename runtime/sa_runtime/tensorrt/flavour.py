"""What differs between TensorRT 10, TensorRT 11 and TensorRT for RTX, in one place.

=====================  ==================  ==================  =========================
\\                      TensorRT 10.x       TensorRT 11.x       TensorRT-RTX
=====================  ==================  ==================  =========================
import name            ``tensorrt``        ``tensorrt``        ``tensorrt_rtx``
builds without a GPU   no                  no                  yes
typing                 asked for           always strong       always strong
plugin layers          yes (from 10.9)     yes                 none: never register one
timing cache           yes                 yes                 does nothing
engine runs on         the GPU it was      the GPU it was      every RTX GPU from Ampere
                       built for, or more  built for, or more  on but the H100 and B200,
                                                               compiled at first use
version-compatible     yes                 yes                 no
=====================  ==================  ==================  =========================
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

from sa_runtime.errors import BuildError, MissingPackageError, bad_value
from sa_runtime.system.gpus import Gpu

FlavourName = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[FlavourName, ...] = get_args(FlavourName)
HardwareCompat = Literal["none", "ampere-plus", "same-cc"]
HARDWARE_COMPAT: tuple[HardwareCompat, ...] = get_args(HardwareCompat)
_LEVELS = {
    "none": "NONE",
    "ampere-plus": "AMPERE_PLUS",
    "same-cc": "SAME_COMPUTE_CAPABILITY",
}
INSTALL: dict[FlavourName, str] = {
    "tensorrt": "pip install 'sa-deploy[gpu]'",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}
Report = Callable[[str, int, int], None]
"""``report(phase, done, total)`` of the builder's phases."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One installed TensorRT.

    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        trt: its module.
        version: for example ``11.4.0.106``.
    """

    name: FlavourName
    trt: ModuleType
    version: str

    @property
    def major(self) -> int:
        """Major version of TensorRT."""
        return int(self.version.split(".")[0])

    @property
    def rtx(self) -> bool:
        """Whether this is TensorRT for RTX."""
        return self.name == "tensorrt-rtx"

    def builder(self, logger: Any) -> Any:
        """A builder.

        Raises:
            BuildError: TensorRT needs a GPU to build and there is none.
        """
        try:
            return self.trt.Builder(logger)
        except TypeError as exc:  # pybind11's name for "the library gave no object"
            raise BuildError(
                f"TensorRT {self.version} cannot start a builder: it needs an NVIDIA GPU and a "
                "driver (see `sa-deploy doctor`); `flavour='tensorrt-rtx'` builds without"
            ) from exc

    def network(self, builder: Any, *, plugin: bool) -> Any:
        """An empty, strongly typed network that prefers embedded plugin kernels."""
        creation = self.trt.NetworkDefinitionCreationFlag
        flags = 0
        if not self.rtx and self.major < 11:
            flags |= 1 << int(creation.STRONGLY_TYPED)
        if plugin:
            flags |= 1 << int(creation.PREFER_AOT_PYTHON_PLUGINS)
        return builder.create_network(flags)

    def set_hardware_compat(self, config: Any, level: HardwareCompat) -> None:
        """Set which GPUs the engine is to run on.

        Raises:
            InputError: a level this flavour does not have.
        """
        if level == "none":
            return
        if self.rtx:
            if level == "ampere-plus":
                return  # what TensorRT-RTX does anyway
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.trt.ComputeCapability.CURRENT, 0)
            return
        known = self.trt.HardwareCompatibilityLevel.__members__
        if _LEVELS[level] not in known:
            offered = ", ".join(name for name, theirs in _LEVELS.items() if theirs in known)
            raise bad_value("hardware_compat", level, f"TensorRT {self.version} knows {offered}")
        config.hardware_compatibility_level = known[_LEVELS[level]]

    def set_version_compat(self, config: Any) -> None:
        """Let later TensorRT versions of the same major run the engine.

        Raises:
            InputError: TensorRT-RTX, which cannot.
        """
        if self.rtx:
            raise bad_value(
                "version_compat",
                True,
                "TensorRT-RTX has no version-compatible engines; build again after an update (a "
                "`cache` does it by itself)",
            )
        config.set_flag(self.trt.BuilderFlag.VERSION_COMPATIBLE)


def rtx_obstacle(gpu: Gpu) -> str:
    """Why TensorRT-RTX runs no engine on a GPU, as a sentence; empty where it does.

    Its own list, from the refusal of 1.7.1 on an H100: "Supported compute capabilities: 8.0 8.6 8.9
    12.0 12.1 >12.0".

    >>> rtx_obstacle(Gpu(index=0, name="NVIDIA L4", compute_capability=89, memory_bytes=1))
    ''
    """
    capability = gpu.compute_capability
    if capability in (80, 86, 89) or capability >= 120:
        return ""
    return (
        f"TensorRT-RTX runs on compute capability 8.0, 8.6, 8.9 and from 12.0 on, and {gpu.name} "
        f"has {capability / 10}"
    )


def load_flavour(name: FlavourName) -> Flavour:
    """Import one TensorRT.

    Raises:
        MissingPackageError: it is not installed.
        BuildError: it is installed but its libraries do not load.
    """
    module = name.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError(
            f"{name} needs the package {module!r}, which is not installed. "
            f"Install it with: {INSTALL[name]}",
            name=module,
        )
    try:
        trt = importlib.import_module(module)
    except (ImportError, OSError) as exc:
        raise BuildError(
            f"{module} is installed but does not load ({exc}); install it again: {INSTALL[name]}"
        ) from exc
    return Flavour(name=name, trt=trt, version=trt.__version__)


def choose_flavour(*, has_gpu: bool) -> FlavourName:
    """TensorRT where a GPU is, TensorRT-RTX otherwise; the other one where only that is installed.

    Args:
        has_gpu: whether a GPU is visible.
    """
    wanted: tuple[FlavourName, ...] = FLAVOURS if has_gpu else FLAVOURS[::-1]
    for name in wanted:
        # Without a GPU TensorRT itself cannot build, so that asking for it would only fail later.
        usable = name == "tensorrt-rtx" or has_gpu
        if usable and importlib.util.find_spec(name.replace("-", "_")) is not None:
            return name
    return wanted[0]


def make_logger(flavour: Flavour, sink: Callable[[str, str], None]) -> Any:
    """A TensorRT logger that calls ``sink(severity, message)``; severities are in lower case."""

    class Logger(flavour.trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            sink(severity.name.lower(), message)

    return Logger()


def make_monitor(flavour: Flavour, report: Report) -> Any:
    """A progress monitor; raising KeyboardInterrupt inside ``report`` cancels the build."""

    class Monitor(flavour.trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self._totals.get(phase_name, 0))

        def _report(self, phase: str, done: int) -> None:
            try:
                report(phase, done, self._totals.get(phase, 0))
            except KeyboardInterrupt:
                # It may not cross TensorRT's own frames; the builder stops at the next step.
                self.cancelled = True

    return Monitor()
