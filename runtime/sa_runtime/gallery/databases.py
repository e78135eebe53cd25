"""Embeddings in a vector database, searched as a gallery is, with the same answers.

LanceDB and Qdrant say which rows may be the nearest, by distances of their own that rounding makes
differ from ours. Those rows are compared again with the stored vectors, and more are asked for
until no row that the database kept back can be nearer. So rows, distances and the order of equal
ones are those of :class:`sa_runtime.gallery.gallery.Gallery`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.gallery.comparable import query_vectors
from sa_runtime.gallery.found import NOBODY, Found, GroupBy, nearest_groups
from sa_runtime.gallery.rows import Where
from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.folder import require_end
from sa_runtime.outputs.manifest import Manifest
from sa_runtime.retrieval.distance import MEMORY_BYTES
from sa_runtime.retrieval.search import Stored
from sa_runtime.retrieval.vectors import Floats, Ints, Vectors

DATABASES: dict[str, str] = {
    ".lancedb": "sa_runtime.gallery.lance:LanceEngine",
    ".qdrant": "sa_runtime.gallery.qdrant:QdrantEngine",
}
"""Suffix -> class of an engine."""
ROUNDING = 0.01
"""More than a squared distance of unit vectors, stored as float16 or not, may be off."""
_MORE = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Rows that a database found, the nearest first.

    Attributes:
        number: (K,) numbers of the rows.
        vectors: (K, D) float32.
        rows: what is known of each.
        distance: (K,) squared distances as the database has them.
    """

    number: Ints
    vectors: Floats
    rows: list[dict[str, Any]]
    distance: Floats


class Engine(Protocol):
    """A database that holds what ``sa-deploy embed`` wrote."""

    def nearest(
        self, query: Floats, k: int, where: Where | None, leave_out: Where | None
    ) -> Candidates:
        """The ``k`` nearest rows of one (D,) query of all that there are."""

    def count(self, where: Where | None, leave_out: Where | None) -> int:
        """Rows that are searched."""

    def read(self, where: Where) -> StoredEmbeddings:
        """The rows that are meant, in order."""

    def close(self) -> None:
        """Let go of the database."""


class DatabaseGallery:
    """A database that ``sa-deploy embed`` wrote, to be searched.

    It is added to by embedding, and removed from by its own means. One thread uses it at a time.

    ::

        with DatabaseGallery("people.lancedb") as gallery:
            found = gallery.search(read_embeddings("query.parquet"), 10)

    Args:
        path: folder that ends in .lancedb or .qdrant.

    Attributes:
        path: as given.
        contract: of the model whose vectors it holds.
        calibration, recall: ``None``: nothing is calibrated, and the search is exact.

    Raises:
        InputError: another name, a run that has not come to its end, or a damaged folder.
        MissingPackageError: the database's package is not installed.
    """

    calibration = None
    recall = None

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in DATABASES:
            expected = ", ".join(f"NAME{suffix}" for suffix in DATABASES)
            raise bad_value("gallery", str(path), f"expected {expected}")
        manifest = Manifest.read(self.path)
        require_end(self.path, manifest, unfinished=False)
        self.contract = Contract.from_json(manifest.contract, source=str(path))
        self._rows = manifest.rows
        module, _, name = DATABASES[self.path.suffix.lower()].partition(":")
        self._engine: Engine = getattr(importlib.import_module(module), name)(
            self.path, self.contract, manifest.rows
        )

    def __enter__(self) -> DatabaseGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._engine.close()

    def __len__(self) -> int:
        return self._rows

    def forget_if_possible(self) -> int:
        """Nothing: a database keeps what it holds."""
        return 0

    def read(self, where: Where) -> StoredEmbeddings:
        """The vectors and rows that are meant, in memory."""
        return self._engine.read(_answerable(where))

    def check_names(self, where: Where) -> None:
        """Refuse a name that no row bears; see ``Where.check_names``."""
        sources = [("source", name, Where(source=(name,))) for name in where.source]
        cameras = [("camera", name, Where(camera=(name,))) for name in where.camera]
        for field, name, bearers in (*sources, *cameras):
            if not self._engine.count(bearers, None):
                raise bad_value(field, name, "no row of the database has it")

    def tracks(self, source: str | None = None) -> list[int]:
        """The ids of its tracks, ascending; of one source, or of all."""
        rows = self._engine.read(Where(source=() if source is None else (source,))).rows
        return sorted(set(rows["track_id"].to_pylist()) - {None})

    def search(
        self,
        query: Stored | Vectors,
        k: int = 10,
        *,
        where: Where | None = None,
        leave_out: Where | None = None,
        by: GroupBy = "row",
        exact: bool = True,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Found:
        """The nearest rows of every query; see ``Gallery.search``.

        Raises:
            InputError: as there, or a person or time of day, which a database does not know.
            ContractError: the query is of another feature space.
        """
        del exact, memory_bytes  # a database compares every row, in its own memory
        if k < 1:
            raise bad_value("k", k, "expected at least 1")
        if by not in get_args(GroupBy):
            raise bad_value("by", by, f"expected one of {', '.join(get_args(GroupBy))}")
        vectors = query_vectors(query, self.contract, f"the gallery {self.path}")
        where = None if where is None else _answerable(where)
        if where is not None:
            self.check_names(where)
        total = self._engine.count(where, leave_out)
        known: dict[int, dict[str, Any]] = {}

        def nearest(wanted: int, queries: Ints) -> tuple[Ints, Floats]:
            wanted = min(wanted, total)
            index = np.full((len(queries), wanted), NOBODY)
            distance = np.full((len(queries), wanted), np.inf, np.float32)
            for place, number in enumerate(queries.tolist()):
                found = self._nearest(vectors[number], wanted, total, where, leave_out, known)
                index[place], distance[place] = found
            return index, distance

        def first_of_each(index: Ints) -> Ints:
            return _first_of_each(index, known)

        found = nearest_groups(nearest, len(vectors), k, total, first_of_each, by)
        return Found(index=found[0], distance=found[1], known=known)

    def _nearest(
        self,
        query: Floats,
        k: int,
        total: int,
        where: Where | None,
        leave_out: Where | None,
        known: dict[int, dict[str, Any]],
    ) -> tuple[Ints, Floats]:
        asked = min(total, 2 * k + 16)
        while True:
            found = self._engine.nearest(query, asked, where, leave_out)
            # Of equal distances the lower row comes first.
            order = np.argsort(found.number, kind="stable")
            some = found.vectors[order]
            part = Part(
                vectors=some,
                norms=np.einsum("nd,nd->n", some, some),
                total=some.sum(axis=0, dtype=float),
            )
            index, distance = nearest_rows(query[None], [part], k)
            rest = found.distance.max(initial=0) - ROUNDING
            if asked >= total or (k and distance[0, -1] < rest):
                chosen = order[index[0]]
                for place in chosen.tolist():
                    known[int(found.number[place])] = found.rows[place]
                return found.number[chosen], distance[0]
            asked = min(total, _MORE * asked)


def _first_of_each(index: Ints, known: Mapping[int, dict[str, Any]]) -> Ints:
    """Positions of the first row of each track; a row without track stands for itself."""
    seen: set[Any] = set()
    first = []
    for position, number in enumerate(index.tolist()):
        row = known[number]
        key = number if row["track_id"] is None else (row["source"], row["track_id"])
        if key not in seen:
            seen.add(key)
            first.append(position)
    return np.array(first, np.int64)


def _answerable(where: Where) -> Where:
    """As given, unless it names what only a gallery keeps."""
    if where.person:
        raise bad_value("person", where.person[0], "a database knows no names; index it first")
    for field in ("start", "end"):
        value = getattr(where, field)
        if value is not None and not isinstance(value, int | float):
            raise bad_value(
                field, value, "a database knows seconds of a source, not times; index it first"
            )
    return where


def is_database(path: Path) -> bool:
    """Whether a path names a database rather than a gallery."""
    return path.suffix.lower() in DATABASES


def require_answer(count: int, wanted: int, path: Path) -> None:
    """Raise InputError where a database gave fewer rows than it holds."""
    if count < wanted:
        raise InputError(
            f"{path}: found {count} rows of the {wanted} nearest; the database was changed "
            "meanwhile, search again",
            path=path,
        )
