"""Qdrant as its client runs it, inside this process: a folder with the collection ``embeddings``.

``QdrantClient(path="NAME.qdrant/storage")`` opens it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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
from sa_runtime.outputs.columns import ROW_NUMBER, ROW_SCHEMA
from sa_runtime.outputs.database import TABLE, Database
from sa_runtime.system.extras import require

STORAGE = "storage"
"""The client's own folder, since it has a lock of the same name as ours."""


class QdrantFolder(Database):
    """Rows in Qdrant, the number of each its id; see :class:`sa_runtime.outputs.base.Lasting`.

    Distances are dot products: of unit vectors they are cosines, and the vectors stay as they are.
    """

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse what cannot be written, the client itself missing included.

        Raises:
            InputError: see :meth:`sa_runtime.outputs.journal.Journal.check`.
            MissingPackageError: the client is not installed.
        """
        _qdrant()
        super().check(target, resume=resume)

    def _let_go(self) -> None:
        self._client.close()

    @classmethod
    def _read_all(cls, target: Path, contract: Contract, rows: int) -> StoredEmbeddings:
        with closing(opened_client(target)) as client:
            table, vectors = _points(client, contract.output.dim, 0, rows)
        return StoredEmbeddings(rows=table, vectors=vectors, contract=contract)

    def _open(self) -> None:
        models = _qdrant().models
        self._client = _opened(self.path)
        if self.manifest.shards:
            _require(self._client, self.path)
            return
        if self._client.collection_exists(TABLE):
            self._client.delete_collection(TABLE)
        space = models.VectorParams(size=self._contract.output.dim, distance=models.Distance.DOT)
        self._client.create_collection(TABLE, vectors_config=space)

    def _trim(self, rows: int) -> int:
        models = _qdrant().models
        behind = models.FieldCondition(key=ROW_NUMBER.name, range=models.Range(gte=rows))
        chosen = models.FilterSelector(filter=models.Filter(must=[behind]))
        self._client.delete(TABLE, points_selector=chosen)
        return int(self._client.count(TABLE).count)

    def _add(self, rows: Sequence[Row], vectors: NDArray[np.floating], first: int) -> None:
        models = _qdrant().models
        points = [
            models.PointStruct(
                id=number,
                vector=vector,
                payload={**row._asdict(), ROW_NUMBER.name: number},
            )
            for number, row, vector in zip(
                range(first, first + len(rows)),
                rows,
                vectors.astype(np.float32).tolist(),
                strict=True,
            )
        ]
        with _written(self.path):
            self._client.upsert(TABLE, points=points)

    def _rows(self, start: int, stop: int) -> tuple[pa.Table, Embeddings]:
        return _points(self._client, self._contract.output.dim, start, stop)


@contextmanager
def _written(target: Path) -> Iterator[None]:
    """The client keeps its points in SQLite, whose errors do not say in which file."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise InputError(
            f"{target}: cannot be written ({exc}); free some space, or write to another disk; what "
            "is finished stays",
            path=target,
        ) from exc


def _points(client: Any, dim: int, start: int, stop: int) -> tuple[pa.Table, Embeddings]:
    found = client.retrieve(
        TABLE, ids=list(range(start, stop)), with_payload=True, with_vectors=True
    )
    found.sort(key=lambda point: point.id)
    vectors = np.array([point.vector for point in found], np.float32).reshape(-1, dim)
    return pa.Table.from_pylist([point.payload for point in found], ROW_SCHEMA), vectors


def opened_client(target: Path) -> Any:
    """A client of a folder that this output wrote.

    Raises:
        InputError: its collection is gone, or another process has it open.
        MissingPackageError: the client is not installed.
    """
    client = _opened(target)
    try:
        _require(client, target)
    except InputError:
        client.close()
        raise
    return client


def qdrant_models() -> Any:
    """What the client's requests are made of."""
    return _qdrant().models


def _qdrant() -> Any:
    return require("qdrant_client", extra="qdrant", purpose="Qdrant")


def _opened(target: Path) -> Any:
    try:
        return _qdrant().QdrantClient(path=str(target / STORAGE))
    except RuntimeError as exc:  # another client holds it
        raise InputError(
            f"{target}: is open in another process ({exc}); close it there", path=target
        ) from exc


def _require(client: Any, target: Path) -> None:
    if not client.collection_exists(TABLE):
        raise InputError(
            f"{target}: its collection {TABLE!r} is gone; choose another `out`", path=target
        )
