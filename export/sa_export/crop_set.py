"""A set of crops at a network's size, and an even choice of some of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from sa_runtime.arrays import Images
from sa_runtime.errors import InputError
from sa_runtime.retrieval.labels import Labels

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CropSet:
    """Crops at a network's size: queries first, then the gallery they are sought in.

    Attributes:
        source: where they came from, for people.
        images: (N, H, W, 3) uint8 BGR.
        names: of the N crops.
        queries: how many of the first rows are queries.
        labels: who is on each crop and which camera took it; ``None`` where that is not known.
    """

    source: str
    images: Images
    names: tuple[str, ...]
    queries: int
    labels: Labels | None = None

    def __post_init__(self) -> None:
        """Check the sizes; raises InputError."""
        count = len(self.images)
        if len(self.names) != count or not 0 < self.queries < count:
            raise InputError(f"{self.source}: {count} crops, {self.queries} queries")

    def __len__(self) -> int:
        return len(self.images)


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, evenly spread.

    >>> spread(range(10), 4)
    [0, 2, 5, 7]
    """
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
