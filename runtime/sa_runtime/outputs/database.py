"""What outputs in an embedded database share: a folder with the database and the manifest of a run.

Rows are numbered. What a stopped run had written behind its manifest is removed before the next one
goes on, so that every row is there once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.outputs.base import OutputOptions, StoredEmbeddings, Writer
from sa_runtime.outputs.columns import rows_of, slices
from sa_runtime.outputs.folder import require_end
from sa_runtime.outputs.journal import Journal
from sa_runtime.outputs.manifest import MANIFEST, Manifest, Shard

TABLE = "embeddings"
"""Name of the table or collection."""
_ROWS = 1024
"""Rows that are written or given again at a time."""


class Database(Journal):
    """Rows in an embedded database; see :class:`sa_runtime.outputs.base.Lasting`."""

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """All rows, in order.

        Raises:
            InputError: the run has not come to its end and ``unfinished`` is false, or rows are
                gone.
        """
        manifest = Manifest.read(target)
        require_end(target, manifest, unfinished=unfinished)
        contract = Contract.from_json(manifest.contract, source=str(target))
        found = cls._read_all(target, contract, manifest.rows)
        if len(found.vectors) != manifest.rows:
            raise _changed(target, manifest.rows, len(found.vectors))
        return [found]

    def stored(self, start: int) -> Iterator[tuple[Sequence[Row], Embeddings]]:
        """The rows from a number on, in order, with their vectors."""
        for piece in slices(self.manifest.rows - start, _ROWS):
            table, vectors = self._rows(start + piece.start, start + piece.stop)
            yield rows_of(table), vectors

    @contextmanager
    def part(self) -> Iterator[Writer]:
        """Rows behind those that are stored; they count when the manifest says so."""
        writer = _PartWriter(self)
        yield writer
        writer.flush()
        before = self.manifest.rows
        self.manifest.shards = [Shard(file=TABLE, rows=before + writer.count)]

    def files(self) -> list[Path | str]:
        """Those of the database."""
        return list(self._files())

    def size_bytes(self) -> int:
        """Of the database."""
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> list[Path]:
        found = (path for path in self.path.rglob("*") if path.parent != self.path)
        return sorted(path for path in found if path.is_file())

    @classmethod
    def _is_of_others(cls, target: Path) -> bool:
        return any(target.glob("[!.]*"))

    def _begin(self, options: OutputOptions, *, begun: bool) -> None:
        self.manifest.contract = self._contract.to_json()
        with ExitStack() as stack:
            if not begun:
                # Before the database: the run after one that is killed in between goes on.
                self._write_manifest()
                stack.callback(self._unbegin)
            self._open()
            stack.callback(self._let_go)
            count = self._trim(self.manifest.rows)
            if count != self.manifest.rows:
                raise _changed(self.path, self.manifest.rows, count)
            stack.pop_all()

    def _unbegin(self) -> None:
        """Leave nothing of a run that failed before its database was there."""
        if all(path.name == MANIFEST for path in self.path.glob("[!.]*")):
            (self.path / MANIFEST).unlink()

    def close(self) -> None:
        """Close the database, and let the next run own the folder."""
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        """Close the database, where it holds anything; closing twice is allowed."""

    def add(self, rows: Sequence[Row], vectors: NDArray[np.floating], first: int) -> None:
        """Write rows, which are numbered from ``first``."""
        self._add(rows, vectors.astype(self._dtype), first)

    @classmethod
    @abstractmethod
    def _read_all(cls, target: Path, contract: Contract, rows: int) -> StoredEmbeddings:
        """The first rows, in order."""

    @abstractmethod
    def _open(self) -> None:
        """Open the database, or make it."""

    @abstractmethod
    def _trim(self, rows: int) -> int:
        """Remove the rows from a number on, and count those that are left."""

    @abstractmethod
    def _add(self, rows: Sequence[Row], vectors: NDArray[np.floating], first: int) -> None:
        """Write rows, which are numbered from ``first``."""

    @abstractmethod
    def _rows(self, start: int, stop: int) -> tuple[pa.Table, Embeddings]:
        """The columns and vectors of the rows between two numbers, in order."""


class _PartWriter:
    """Collects rows into groups."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self._database = database
        self._rows: list[Row] = []
        self._vectors: list[Embeddings] = []

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        self._rows.extend(rows)
        self._vectors.append(vectors)
        self.count += len(rows)
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            first = self._database.manifest.rows + self.count - len(self._rows)
            self._database.add(self._rows, np.concatenate(self._vectors), first)
        self._rows, self._vectors = [], []


def _changed(target: Path, expected: int, count: int) -> InputError:
    return InputError(
        f"{target}: was changed after it was written, with {expected} rows; it holds {count} of "
        "them; choose another `out`",
        path=target,
    )
