"""LanceDB, which runs inside this process: a folder with the table ``embeddings``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_NUMBER, ROW_SCHEMA, row_table
from sa_runtime.outputs.database import TABLE, Database
from sa_runtime.outputs.folder import in_order
from sa_runtime.outputs.parquet import metadata_of, stored_in, vector_array, vector_type, vectors_of
from sa_runtime.system.extras import require

_PARTS = 20
"""So many groups of rows are merged into one file; LanceDB writes one for each."""


class LanceFolder(Database):
    """Rows in LanceDB; see :class:`sa_runtime.outputs.base.Lasting`."""

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse what cannot be written, LanceDB itself missing included.

        Raises:
            InputError: see :meth:`sa_runtime.outputs.journal.Journal.check`.
            MissingPackageError: LanceDB is not installed.
        """
        _lancedb()
        super().check(target, resume=resume)

    @classmethod
    def _read_all(cls, target: Path, contract: Contract, rows: int) -> StoredEmbeddings:
        table = opened_table(target)
        found = table.search().where(f"row < {rows}").limit(max(rows, 1)).to_arrow()
        return in_order([stored_in(found.replace_schema_metadata(metadata_of(contract)), target)])

    def _open(self) -> None:
        database = _lancedb().connect(str(self.path))
        if self.manifest.shards:
            self._table = _existing(database, self.path)
            return
        kind = vector_type(np.dtype(self._dtype), self._contract.output.dim)
        schema = pa.schema([*ROW_SCHEMA, ROW_NUMBER, pa.field("embedding", kind)])
        # A run that was stopped before its first manifest with rows may have left one.
        with suppress(Exception):
            database.drop_table(TABLE)
        self._table = database.create_table(
            TABLE, schema=schema.with_metadata(metadata_of(self._contract))
        )

    def _trim(self, rows: int) -> int:
        if self._table.count_rows(f"row >= {rows}"):
            self._table.delete(f"row >= {rows}")
        self._added = 0
        return int(self._table.count_rows())

    def _add(self, rows: Sequence[Row], vectors: NDArray[np.floating], first: int) -> None:
        numbers = pa.array(range(first, first + len(rows)), pa.int64())
        table = row_table(rows).append_column(ROW_NUMBER, numbers)
        kind = pa.field("embedding", vector_type(vectors.dtype, vectors.shape[1]))
        self._table.add(table.append_column(kind, vector_array(vectors)))
        self._added += 1
        if self._added % _PARTS == 0:
            self._table.optimize()

    def _rows(self, start: int, stop: int) -> tuple[pa.Table, Embeddings]:
        inside = f"row >= {start} AND row < {stop}"
        found = self._table.search().where(inside).limit(max(stop - start, 1)).to_arrow()
        found = found.sort_by(ROW_NUMBER.name)
        vectors = vectors_of(found, self._contract.output.dim, self.path)
        return found.select(ROW_SCHEMA.names), vectors


def opened_table(target: Path) -> Any:
    """The table of a folder that this output wrote.

    Raises:
        InputError: it is gone.
        MissingPackageError: LanceDB is not installed.
    """
    return _existing(_lancedb().connect(str(target)), target)


def _lancedb() -> Any:
    return require("lancedb", extra="lancedb", purpose="LanceDB")


def _existing(database: Any, target: Path) -> Any:
    try:
        return database.open_table(TABLE)
    except Exception as exc:
        raise InputError(
            f"{target}: its table {TABLE!r} cannot be opened ({exc}); choose another `out`",
            path=target,
        ) from exc
