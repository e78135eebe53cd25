"""LanceDB as the engine of a search; see :mod:`sa_runtime.gallery.databases`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.artefact.contract import Contract
from sa_runtime.gallery.databases import Candidates, require_answer
from sa_runtime.gallery.rows import Where
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_NUMBER, ROW_SCHEMA
from sa_runtime.outputs.lance import opened_table
from sa_runtime.outputs.parquet import vectors_of
from sa_runtime.retrieval.vectors import Floats


class LanceEngine:
    """Rows of a folder that ends in .lancedb; an index of the table is not used."""

    def __init__(self, path: Path, contract: Contract, rows: int) -> None:
        self._path, self._contract, self._rows = path, contract, rows
        self._table = opened_table(path)

    def nearest(
        self, query: Floats, k: int, where: Where | None, leave_out: Where | None
    ) -> Candidates:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        search = self._table.search(query, vector_column_name="embedding").distance_type("l2")
        search = search.bypass_vector_index().where(
            self._condition(where, leave_out), prefilter=True
        )
        found = search.limit(k).to_arrow()
        require_answer(len(found), k, self._path)
        return Candidates(
            number=found[ROW_NUMBER.name].to_numpy(),
            vectors=vectors_of(found, self._contract.output.dim, self._path),
            rows=found.select(ROW_SCHEMA.names).to_pylist(),
            distance=found["_distance"].to_numpy().astype(np.float32),
        )

    def count(self, where: Where | None, leave_out: Where | None) -> int:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        return int(self._table.count_rows(self._condition(where, leave_out)))

    def read(self, where: Where) -> StoredEmbeddings:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        search = self._table.search().where(self._condition(where, None))
        found = search.limit(max(1, self._rows)).to_arrow().sort_by(ROW_NUMBER.name)
        return StoredEmbeddings(
            rows=found.select(ROW_SCHEMA.names),
            vectors=vectors_of(found, self._contract.output.dim, self._path),
            contract=self._contract,
        )

    def close(self) -> None:
        """Nothing is held."""

    def _condition(self, where: Where | None, leave_out: Where | None) -> str:
        parts = [f"{ROW_NUMBER.name} < {self._rows}"]
        if where is not None and not where.everything:
            parts.append(_meant(where))
        if leave_out is not None and not leave_out.everything:
            parts.append(f"({_meant(leave_out)}) IS NOT TRUE")
        return " AND ".join(parts)


def _meant(where: Where) -> str:
    names = [
        f"{field} IN ({', '.join(map(_quoted, getattr(where, field)))})"
        for field in ("source", "camera")
        if getattr(where, field)
    ]
    return " AND ".join([*names, *(" ".join(map(str, limit)) for limit in _limits(where))])


def _limits(where: Where) -> list[tuple[str, str, Any]]:
    limits = [
        ("track_id", "=", where.track),
        ("timestamp_s", ">=", where.start),
        ("timestamp_s", "<", where.end),
    ]
    return [limit for limit in limits if limit[2] is not None]


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
