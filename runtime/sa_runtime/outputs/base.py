"""What an output is, how far it has come, and what reading one gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.items import Counts, Position, Row

if TYPE_CHECKING:
    import pyarrow as pa

StoredType = Literal["float32", "float16"]
"""How vectors are stored: float16 halves the size and keeps 1e-3 of accuracy."""
PART_ROWS = 50_000
PART_SECONDS = 600.0
"""A part is also closed after this long, since a stopped run loses what was not."""
_MEASURED = 65_536
"""Rows whose lengths are taken at a time."""
_OFF = 0.01
"""More than a length is off that was stored as float16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the rows of an output have come.

    Attributes:
        rows: number of rows stored.
        position: behind the last of them.
        counts: of what was met up to there.
        complete: whether nothing is left to embed.
    """

    rows: int = 0
    position: Position = dataclasses.field(default_factory=Position)
    counts: Counts = dataclasses.field(default_factory=Counts)
    complete: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How an output is opened.

    Attributes:
        dtype: of the stored vectors.
        plan: all that decides the rows, see :func:`sa_runtime.outputs.manifest.plan_of`.
        resume: go on with what an earlier run of the same plan has stored.
        part_rows: a part ends with the picture that reaches this many rows.
        partition: names of :data:`sa_runtime.outputs.partition.PARTITIONS`; folders of files are
            divided by them.
        settings: that made the run, as JSON values, to be noted beside it.
        tracks: a file of one row a track, with the columns that tracks have.
    """

    dtype: StoredType = "float32"
    plan: dict[str, Any] = dataclasses.field(default_factory=dict)
    resume: bool = False
    part_rows: int = PART_ROWS
    partition: tuple[str, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    tracks: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredEmbeddings:
    """What :func:`sa_runtime.outputs.read.read_embeddings` reads.

    Its fields never change, so that threads may share it; none should write into its arrays.

    Attributes:
        rows: the columns of :data:`sa_runtime.outputs.columns.ROW_SCHEMA`, N rows; those of
            :data:`sa_runtime.outputs.columns.TRACK_SCHEMA` where there is one for each track.
        vectors: (N, D) float32; unit length, to 1e-3 where the file holds float16.
        contract: of the model that made them.
    """

    rows: pa.Table
    vectors: Embeddings
    contract: Contract


class Writer(Protocol):
    """Takes the rows of one part."""

    count: int

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Append N rows and their (N, D) float32 vectors."""


class Output(Protocol):
    """Where the rows and vectors of a run go, part by part.

    A part is whole or absent. Outputs that can go on after a stop keep, with every part, how far
    the run had come; the others hold one part.

    Attributes:
        part_rows: a part ends with the picture that reaches this many rows; ``None`` for one part.
    """

    part_rows: int | None

    @property
    def progress(self) -> Progress:
        """What earlier runs and the parts committed since have stored."""

    def part(self) -> AbstractContextManager[Writer]:
        """A new part, stored when the block ends well."""

    def commit(self, progress: Progress) -> None:
        """Keep how far the run has come, after a part."""

    def files(self) -> list[Path | str]:
        """The files that hold the rows."""

    def size_bytes(self) -> int:
        """Of all that is stored."""

    def close(self) -> None:
        """Let go of the output; closing twice is allowed."""


class Lasting(Output, Protocol):
    """An output that can go on after a stop, and give again what it holds."""

    @property
    def plan(self) -> dict[str, Any]:
        """Of the rows, with the sources of earlier runs before those that came later."""

    def adopt(self, plan: dict[str, Any]) -> None:
        """Take the plan of another output, while nothing is stored yet."""

    def stored(self, start: int) -> Iterator[tuple[Sequence[Row], Embeddings]]:
        """The rows from a number on, in order, with their vectors."""


class OutputKind(Protocol):
    """The class of an output, as :data:`sa_runtime.outputs.table.OUTPUTS` names it."""

    def __call__(self, target: Path, contract: Contract, options: OutputOptions) -> Output:
        """Open the output, a file or folder, for the vectors of a model."""

    def check(self, target: Path, *, resume: bool) -> None:
        """Refuse a target at once that opening would refuse.

        Raises:
            InputError: it cannot be written to.
        """

    def read(self, target: Path, *, unfinished: bool) -> Sequence[StoredEmbeddings]:
        """What is stored, file by file; ``unfinished`` also takes what a stopped run left."""


def require_unit_length(vectors: NDArray[np.floating], path: Path | str) -> None:
    """Refuse vectors that no model of this project gives, since distances of them mean nothing.

    Args:
        vectors: (N, D).
        path: where they stand, for messages.

    Raises:
        InputError: a row is not finite, or its length is off by more than float16 rounds.
    """
    for start in range(0, len(vectors), _MEASURED):
        some = vectors[start : start + _MEASURED]
        length = np.sqrt(np.einsum("nd,nd->n", some, some, dtype=np.float32))
        # Not a number compares with nothing.
        right = np.abs(length - 1) <= _OFF
        if not right.all():
            row = int(np.flatnonzero(~right)[0])
            found = f"of length {length[row]:.4g}" if np.isfinite(length[row]) else "not finite"
            raise InputError(
                f"{path}: the vector of row {start + row} is {found}, expected the length 1 that "
                "models give; leave the row out, or embed again",
                path=path,
            )
