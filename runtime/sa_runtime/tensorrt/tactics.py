"""How the AttentionPool kernel is cut for a map: tiles, warps, programs per image.

Pure arithmetic: no Triton, no TensorRT. A tactic's number is stored in engines and
timing caches, so the table only ever grows at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, windows
from sa_runtime.errors import InputError

Element = Literal["fp32", "fp16", "bf16"]
ELEMENTS: tuple[Element, ...] = ("fp32", "fp16", "bf16")
NORMALIZE_CODES: dict[Normalize, int] = {"none": 0, "sum": 1, "softmax": 2}
"""What the constant ``NORMALIZE`` of the kernel means."""
MAX_MAP_ELEMENTS = 1 << 16
"""Largest padded map one program may hold; maps of people have some hundred pixels."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One AttentionPool node: what its kernel is compiled for. The batch stays free.

    Raises:
        InputError: a field out of range, named with its value.
    """

    channels: int
    height: int
    width: int
    parts: int
    normalize: Normalize
    element: Element

    def __post_init__(self) -> None:
        """Check every field."""
        for field in ("channels", "height", "width"):
            value = getattr(self, field)
            if value < 1:
                raise InputError(
                    f"AttentionPool: {field}={value}, expected a fixed size of at least 1 "
                    "(only the batch may be dynamic)"
                )
        if self.normalize not in NORMALIZATIONS:
            raise InputError(
                f"AttentionPool: normalize={self.normalize!r}, expected one of "
                f"{', '.join(NORMALIZATIONS)}"
            )
        if self.element not in ELEMENTS:
            raise InputError(
                f"AttentionPool: element={self.element!r}, expected one of {', '.join(ELEMENTS)}"
            )
        windows(self.height, self.parts)
        if self.map_elements > MAX_MAP_ELEMENTS:
            raise InputError(
                f"AttentionPool: a map of {self.height} x {self.width} pads to {self.map_elements} "
                f"elements, expected at most {MAX_MAP_ELEMENTS}; build with `plugin=False`"
            )

    @property
    def map_elements(self) -> int:
        """Elements of one channel's map, padded to a power of two."""
        return power_of_two(self.height * self.width)


@dataclass(frozen=True)
class Tactic:
    """One way to run the kernel.

    Attributes:
        tile_elements: elements of the image a program looks at in one step.
        warps: of 32 threads each.
        splits: programs that share one image's channels.
        whole_image: only for images that fit into the tile (one read, no second pass).
    """

    tile_elements: int
    warps: int
    splits: int
    whole_image: bool = False


TACTICS: tuple[Tactic, ...] = (
    Tactic(32768, 16, 1, whole_image=True),
    Tactic(8192, 8, 1),
    Tactic(16384, 16, 1),
    Tactic(8192, 8, 4),
    Tactic(16384, 8, 4),
    Tactic(16384, 16, 8),
    Tactic(16384, 16, 16),
    Tactic(16384, 8, 32),
)
"""Tactic ``i`` of TensorRT is ``TACTICS[i - 1]``: TensorRT keeps 0 for itself."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The kernel's constants for one pool and one tactic.

    Attributes:
        tile: (channels, pixels) a program looks at in one step, powers of two.
        step, size: of the windows, in rows.
        splits: programs per image.
        warps: per program.
        passes: sweeps a program makes over its own channels, 1 or 2.
        reads: how often each element is asked for by all programs together; the first of them
            comes from memory, the others from the caches.
    """

    tile: tuple[int, int]
    step: int
    size: int
    splits: int
    warps: int
    passes: int
    reads: int


def power_of_two(value: int) -> int:
    """The smallest power of two that is not below ``value``.

    >>> [power_of_two(n) for n in (1, 2, 3, 24)]
    [1, 2, 4, 32]
    """
    return 1 << (value - 1).bit_length()


def plan(pool: Pool, tactic: Tactic) -> Plan:
    """How ``tactic`` runs ``pool``.

    >>> pool = Pool(channels=2048, height=24, width=8, parts=6, normalize="sum", element="fp16")
    >>> plan(pool, Tactic(8192, 8, 4)).tile, plan(pool, Tactic(8192, 8, 4)).reads
    ((32, 256), 5)
    """
    step, size = windows(pool.height, pool.parts)
    channels = max(1, min(power_of_two(pool.channels), tactic.tile_elements // pool.map_elements))
    passes = 1 if pool.normalize == "none" or channels >= pool.channels else 2
    return Plan(
        tile=(channels, pool.map_elements),
        step=step,
        size=size,
        splits=tactic.splits,
        warps=tactic.warps,
        passes=passes,
        reads=1 if passes == 1 else 1 + tactic.splits,
    )


def suits(pool: Pool, tactic: Tactic) -> bool:
    """Whether ``tactic`` leaves no program without work and keeps its own promise."""
    tiles = -(-pool.channels // plan(pool, tactic).tile[0])
    return tactic.splits <= tiles and (not tactic.whole_image or tiles == 1)


def tactics_for(pool: Pool) -> list[int]:
    """Numbers of the tactics that suit ``pool``, never none.

    >>> tactics_for(Pool(channels=64, height=24, width=8, parts=1, normalize="sum", element="fp16"))
    [1, 2, 3]
    """
    return [number for number, tactic in enumerate(TACTICS, start=1) if suits(pool, tactic)]
