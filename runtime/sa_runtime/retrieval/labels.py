"""Who is on each image, and which vectors count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sa_runtime.datasets.base import JUNK
from sa_runtime.errors import InputError
from sa_runtime.retrieval.vectors import Ints, VectorRows, Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Who is on each image and which camera took it.

    Attributes:
        person: (N,) integers; -1 is junk.
        camera: (N,) integers.
    """

    person: Ints
    camera: Ints

    def __post_init__(self) -> None:
        """Check shapes and types; raises InputError."""
        for field in ("person", "camera"):
            value = getattr(self, field)
            if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
                raise InputError(
                    f"labels.{field} of shape {value.shape} {value.dtype}: expected (N,) integers"
                )
        if len(self.person) != len(self.camera):
            raise InputError(
                f"labels of {len(self.person)} persons and {len(self.camera)} cameras: expected "
                "one of each for every image"
            )
        if len(self.person) and self.person.min() < JUNK:
            raise InputError(
                f"labels.person holds {self.person.min()}: expected {JUNK} (junk), 0 or more"
            )

    def __len__(self) -> int:
        return len(self.person)

    def select(self, rows: Ints) -> Labels:
        """The labels of some rows."""
        return Labels(person=self.person[rows], camera=self.camera[rows])


def without_junk(vectors: Vectors, labels: Labels, name: str) -> tuple[VectorRows, Labels, Ints]:
    """The vectors that count.

    Args:
        vectors: (N, D).
        labels: of the N images.
        name: ``query`` or ``gallery``, for messages.

    Returns:
        M rows, their labels, and (M,) which of the N they are.

    Raises:
        InputError: other than N labels, or vectors that are none.
    """
    if len(vectors) != len(labels):
        raise InputError(
            f"{len(vectors)} {name} vectors but {len(labels)} labels: expected one for each"
        )
    kept = np.flatnonzero(labels.person != JUNK)
    whole = len(kept) == len(labels)
    rows = VectorRows(vectors, name=name, keep=None if whole else kept)
    return rows, labels.select(kept), kept
