"""What a user may ask of an engine: batch sizes, memory, effort, the GPUs it is to run on."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.tensorrt.flavour import HARDWARE_COMPAT, HardwareCompat

DEFAULT_MAX_BATCH = 32
DEFAULT_OPT_BATCH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Batch sizes of an engine: it takes every size from ``min`` to ``max``, ``opt`` fastest.

    Raises:
        InputError: sizes that are not 1 <= min <= opt <= max.
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        """Check the order."""
        if not 1 <= self.min <= self.opt <= self.max:
            raise InputError(
                f"`min_batch={self.min}` `opt_batch={self.opt}` `max_batch={self.max}`: "
                "expected 1 <= min <= opt <= max"
            )

    @property
    def fixed(self) -> bool:
        """Whether only one batch size is taken."""
        return self.min == self.max


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        profile: batch sizes.
        workspace_gib: scratch memory a layer may use on the GPU; ``None`` for TensorRT's default,
            all of it.
        optimization_level: 0 (fast build) to 5 (fast engine); ``None`` for TensorRT's default.
        hardware_compat: GPUs that the engine is to run on, besides the one that builds it.
        version_compat: later TensorRT versions of the same major run the engine.
        strip: leave the weights out; the engine is refitted from the ONNX file.
        plugin: pool with the fused kernel; ``None`` where it can be had.
        debug_layers: keep names and types of every layer in the engine.

    Raises:
        InputError: a field out of its range.
    """

    profile: Profile
    workspace_gib: float | None = None
    optimization_level: int | None = None
    hardware_compat: HardwareCompat = "none"
    version_compat: bool = False
    strip: bool = False
    plugin: bool | None = None
    debug_layers: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        if self.workspace_gib is not None and not 0 < self.workspace_gib < math.inf:
            raise bad_value("workspace_gib", self.workspace_gib, "expected GiB, more than 0")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise bad_value("optimization_level", self.optimization_level, "expected 0 to 5")
        if self.hardware_compat not in HARDWARE_COMPAT:
            choices = ", ".join(HARDWARE_COMPAT)
            raise bad_value(
                "hardware_compat", self.hardware_compat, f"unknown; choose from {choices}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the sidecar."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> BuildOptions:
        """Read what :meth:`to_dict` gave.

        >>> options = BuildOptions(profile=Profile(min=1, opt=2, max=4), strip=True)
        >>> BuildOptions.from_dict(options.to_dict()) == options
        True
        """
        return cls(**{**fields, "profile": Profile(**fields["profile"])})


def profile_for(
    contract: Contract,
    *,
    min_batch: int | None = None,
    opt_batch: int | None = None,
    max_batch: int | None = None,
) -> Profile:
    """Batch sizes from what was asked and what the artefact takes.

    What is not asked for follows from the rest: at most :data:`DEFAULT_MAX_BATCH` images, fastest
    at :data:`DEFAULT_OPT_BATCH`.

    Raises:
        InputError: sizes that contradict each other or the artefact.
    """
    limit = contract.max_batch
    asked = {"min_batch": min_batch, "opt_batch": opt_batch, "max_batch": max_batch}
    if limit is not None:
        for name, value in asked.items():
            if value is not None and (value > limit or (contract.fixed_batch and value != limit)):
                exactly = "exactly" if contract.fixed_batch else "at most"
                raise bad_value(
                    name,
                    value,
                    f"the ONNX file takes {exactly} {limit} images a batch; export it again with a "
                    "dynamic batch",
                )
    if contract.fixed_batch and limit is not None:
        return Profile(min=limit, opt=limit, max=limit)
    least = 1 if min_batch is None else min_batch
    if max_batch is None:
        floor = max(least, opt_batch or 0)
        max_batch = max(
            floor, DEFAULT_MAX_BATCH if limit is None else min(limit, DEFAULT_MAX_BATCH)
        )
    if opt_batch is None:
        opt_batch = max(least, min(DEFAULT_OPT_BATCH, max_batch))
    return Profile(min=least, opt=opt_batch, max=max_batch)


def batch_from_shape(word: str, text: str, contract: Contract) -> int:
    """The batch size in one of trtexec's shape words.

    Args:
        word: ``--minShapes``, ``--optShapes`` or ``--maxShapes``, for messages.
        text: ``NAME:AxBxCxD``.
        contract: of the ONNX file; everything but the batch must be its own.

    Raises:
        InputError: another tensor, another rank or another size.

    >>> from sa_runtime.artefact.contract import InputSpec, OutputSpec
    >>> c = Contract(input=InputSpec(height=8, width=4), output=OutputSpec(dim=2),
    ...              weights_sha256="0", space="s")
    >>> batch_from_shape("--maxShapes", "images:16x8x4x3", c)
    16
    """
    spec = contract.input
    size = (spec.height, spec.width)
    tail = (*size, 3) if spec.layout == "nhwc" else (3, *size)
    expected = "x".join(("N", *map(str, tail)))
    match = re.fullmatch(r"(?:(?P<name>[^:]+):)?(?P<dims>\d+(?:x\d+)*)", text)
    if match is None:
        raise InputError(f"{word} {text}: expected {spec.name}:{expected}")
    batch, *rest = map(int, match["dims"].split("x"))
    if match["name"] not in (None, spec.name) or tuple(rest) != tail:
        raise InputError(
            f"{word} {text}: the ONNX file's input is {spec.name}:{expected}; only N may be chosen"
        )
    return batch
