"""An output that is one file, which appears when all is embedded."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import bad_value
from sa_runtime.outputs.base import OutputOptions, Progress
from sa_runtime.outputs.columns import ROW_SCHEMA, TRACK_SCHEMA
from sa_runtime.outputs.file_writer import FileWriter


class OneFile:
    """One file of whatever format; see :class:`sa_runtime.outputs.base.Output`.

    Attributes:
        writer: what writes the file.
    """

    writer: ClassVar[type[FileWriter]]
    part_rows: int | None = None

    def __init__(self, target: Path, contract: Contract, options: OutputOptions) -> None:
        self.check(target, resume=options.resume)
        self.progress = Progress()
        self._target = target
        self._contract = contract
        self._dtype = options.dtype
        self._columns = TRACK_SCHEMA if options.tracks else ROW_SCHEMA

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse to go on: what was stored of one file is not known.

        Raises:
            InputError: ``resume`` is set.
        """
        if resume:
            raise bad_value(
                "resume", True, f"{target} is one file; choose a folder as `out` to go on with"
            )

    def part(self) -> FileWriter:
        """The whole file."""
        return self.writer(self._target, self._contract, self._dtype, columns=self._columns)

    def commit(self, progress: Progress) -> None:
        """Remember it for as long as the run lasts."""
        self.progress = progress

    def files(self) -> list[Path | str]:
        """The one file."""
        return [self._target]

    def size_bytes(self) -> int:
        """Of the file."""
        return self._target.stat().st_size

    def close(self) -> None:
        """Nothing is held."""
