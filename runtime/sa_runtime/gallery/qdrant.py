"""Qdrant as the engine of a search; see :mod:`sa_runtime.gallery.databases`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sa_runtime.artefact.contract import Contract
from sa_runtime.gallery.databases import Candidates, require_answer
from sa_runtime.gallery.rows import Where
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_NUMBER, ROW_SCHEMA
from sa_runtime.outputs.database import TABLE
from sa_runtime.outputs.qdrant import opened_client, qdrant_models
from sa_runtime.retrieval.vectors import Floats


class QdrantEngine:
    """Points of a folder that ends in .qdrant as the client has them, which compares every one."""

    def __init__(self, path: Path, contract: Contract, rows: int) -> None:
        self._path, self._contract, self._rows = path, contract, rows
        self._client = opened_client(path)
        self._models = qdrant_models()

    def nearest(
        self, query: Floats, k: int, where: Where | None, leave_out: Where | None
    ) -> Candidates:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        found = self._client.query_points(
            TABLE,
            query=query.tolist(),
            query_filter=self._filter(where, leave_out),
            limit=k,
            with_payload=True,
            with_vectors=True,
        ).points
        require_answer(len(found), k, self._path)
        score = np.array([point.score for point in found], np.float32)
        return Candidates(
            number=np.array([point.id for point in found], np.int64),
            vectors=self._vectors(found),
            rows=_table(found).to_pylist(),
            # The scores are dot products, and all vectors are of unit length.
            distance=1 + np.einsum("d,d->", query, query) - 2 * score,
        )

    def count(self, where: Where | None, leave_out: Where | None) -> int:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        chosen = self._filter(where, leave_out)
        return int(self._client.count(TABLE, count_filter=chosen, exact=True).count)

    def read(self, where: Where) -> StoredEmbeddings:
        """See :class:`sa_runtime.gallery.databases.Engine`."""
        found, _ = self._client.scroll(
            TABLE,
            scroll_filter=self._filter(where, None),
            limit=max(1, self._rows),
            with_payload=True,
            with_vectors=True,
        )
        found.sort(key=lambda point: point.id)
        return StoredEmbeddings(
            rows=_table(found), vectors=self._vectors(found), contract=self._contract
        )

    def close(self) -> None:
        """Let another process open the folder."""
        self._client.close()

    def _vectors(self, points: list[Any]) -> Floats:
        dim = self._contract.output.dim
        return np.array([point.vector for point in points], np.float32).reshape(-1, dim)

    def _filter(self, where: Where | None, leave_out: Where | None) -> Any:
        models = self._models
        must = [self._range(ROW_NUMBER.name, lt=self._rows)]
        if where is not None:
            must += self._meant(where)
        left = [] if leave_out is None else self._meant(leave_out)
        # What is left out fulfils all conditions at once.
        return models.Filter(must=must, must_not=[models.Filter(must=left)] if left else None)

    def _meant(self, where: Where) -> list[Any]:
        models = self._models
        found = [
            models.FieldCondition(key=field, match=models.MatchAny(any=list(getattr(where, field))))
            for field in ("source", "camera")
            if getattr(where, field)
        ]
        if where.track is not None:
            value = models.MatchValue(value=where.track)
            found.append(models.FieldCondition(key="track_id", match=value))
        if where.start is not None or where.end is not None:
            found.append(self._range("timestamp_s", gte=where.start, lt=where.end))
        return found

    def _range(self, key: str, **limits: Any) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.Range(**limits))


def _table(points: list[Any]) -> pa.Table:
    return pa.Table.from_pylist([point.payload for point in points], ROW_SCHEMA)
