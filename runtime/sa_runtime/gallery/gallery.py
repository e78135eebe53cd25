"""Gallery: vectors of people on disk, with what is known of each; searched, added to, removed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.gallery.approximate import MOST_WANTED, Method, OnIndex
from sa_runtime.gallery.by_index import by_index
from sa_runtime.gallery.calibration import Calibration
from sa_runtime.gallery.comparable import query_vectors
from sa_runtime.gallery.found import Found, GroupBy, Groups, nearest_groups
from sa_runtime.gallery.ingest import Known, add_rows
from sa_runtime.gallery.manifest import Manifest, seconds_kept
from sa_runtime.gallery.retention import forget_rows, outlived, remove_rows
from sa_runtime.gallery.rows import (
    ROW_SCHEMA,
    RowLabels,
    Where,
    counts_of,
    names_of,
    tracks_of,
)
from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.gallery.segments import Segment
from sa_runtime.gallery.store import Store, copy_rows
from sa_runtime.outputs.base import StoredEmbeddings, StoredType
from sa_runtime.retrieval.distance import MEMORY_BYTES
from sa_runtime.retrieval.search import Stored
from sa_runtime.retrieval.vectors import Floats, Ints, Vectors

_log = logging.getLogger(__name__)


class Gallery:
    """A folder of vectors of one feature space.

    Whoever searches sees the gallery as it was opened, whatever others write meanwhile; one process
    writes at a time. Every change is whole or absent: a process that is killed leaves the gallery
    as it was, and the next one that writes removes what is left over. Any thread may search, also
    while another changes the gallery: it sees the state before or after. Of two threads that change
    it at once the second is refused, as a second process is.

    ::

        gallery = Gallery.create("gallery", contract)
        gallery.add([read_embeddings("people.parquet")])
        found = gallery.search(read_embeddings("query.parquet"), 10)

    Args:
        path: a folder that :meth:`create` or ``sa-deploy index`` made.
        on_index: called while an index is built, with the rows that are in it and all that come
            into it; with millions of rows that takes minutes.

    Raises:
        MissingFileError: no gallery is there.
        InputError: its files are damaged.
        ContractError: its contract was changed.
    """

    def __init__(self, path: Path | str, *, on_index: OnIndex | None = None) -> None:
        self.path = Path(path)
        self._store = Store(self.path)
        self._store.on_index = on_index

    @classmethod
    def create(
        cls,
        path: Path | str,
        contract: Contract,
        *,
        dtype: StoredType = "float32",
        method: Method = "exact",
        keep: timedelta | None = None,
    ) -> Self:
        """A new gallery without rows.

        Args:
            path: a folder that is not there, or empty.
            contract: of the model whose vectors it will hold.
            dtype: of the stored vectors; float16 takes half the space and keeps 1e-3 of accuracy.
            method: ``exact`` compares every row; ``hnsw`` (the extra ``gallery``) follows a graph,
                ``ivfpq`` (the extra ``faiss``) compares codes of a few bytes: both are faster and
                miss some; see :attr:`recall`.
            keep: rows older than this are forgotten: by when they were taken, where that is known,
                else by when they were added.

        Raises:
            InputError: something is in the folder.
        """
        store = Store(Path(path), new=Manifest.new(contract, dtype, method, keep))
        with store.changing() as manifest:
            store.swap(manifest)
        return cls(path)

    @property
    def contract(self) -> Contract:
        """Of the model whose vectors it holds."""
        return self._store.manifest.contract

    @property
    def keep(self) -> timedelta | None:
        """How long rows are kept."""
        seconds = self._store.manifest.keep_seconds
        return None if seconds is None else timedelta(seconds=seconds)

    @property
    def dtype(self) -> StoredType:
        """Of the stored vectors."""
        return self._store.manifest.dtype

    @property
    def segments(self) -> Sequence[Segment]:
        """Its files."""
        return tuple(self._store.segments)

    @property
    def method(self) -> Method:
        """How it is searched."""
        return self._store.manifest.method

    @property
    def recall(self) -> float | None:
        """Share of the 10 nearest rows that its indexes find, as measured when they were built.

        Of queries whose track is not in the gallery.

        ``None`` without an index: then the search is exact.
        """
        graphs = [s.info for s in self._store.segments if s.info.recall is not None]
        if not graphs:
            return None
        rows = sum(info.rows for info in graphs)
        return sum(info.rows * (info.recall or 0) for info in graphs) / rows

    @property
    def calibration(self) -> Calibration | None:
        """What distances say, where that was calibrated."""
        return self._store.manifest.calibration

    def __len__(self) -> int:
        return self._store.manifest.rows

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum(sum(info.size_bytes.values()) for info in self._store.manifest.segments)

    def names(self, field: Literal["source", "camera", "person"]) -> list[str]:
        """The sources, cameras or people of its rows, sorted."""
        return names_of([segment.rows for segment in self._store.segments], field)

    def count(self, where: Where) -> int:
        """Rows that are meant."""
        return int(sum(where.of(segment.rows).sum() for segment in self._store.segments))

    def to_dict(self) -> dict[str, Any]:
        """What it holds, for JSON."""
        first = [info.oldest for info in self._store.manifest.segments]
        oldest = datetime.fromtimestamp(min(first), UTC).isoformat() if first else None
        tables = [segment.rows for segment in self._store.segments]
        return {
            "gallery": str(self.path),
            "rows": len(self),
            "segments": len(self._store.segments),
            "size_bytes": self.size_bytes,
            "dim": self.contract.output.dim,
            "dtype": self.dtype,
            "space": self.contract.space,
            "method": self.method,
            "recall": self.recall,
            "keep_seconds": self._store.manifest.keep_seconds,
            "oldest": oldest,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "sources": counts_of(tables, "source"),
            "cameras": counts_of(tables, "camera"),
            "persons": counts_of(tables, "person"),
            "removals": self.removals(),
        }

    def removals(self) -> list[dict[str, Any]]:
        """What was removed and forgotten: when, why, and how many rows."""
        return list(self._store.manifest.removals)

    def read(self, where: Where) -> StoredEmbeddings:
        """The vectors and rows that are meant, in memory."""
        tables, vectors = [ROW_SCHEMA.empty_table()], [self._no_vectors()]
        for segment in self._store.segments:
            rows = np.flatnonzero(where.of(segment.rows) & ~outlived(segment, self._store.manifest))
            tables.append(segment.rows.take(pa.array(rows)))
            vectors.append(np.asarray(segment.vectors[rows], np.float32))
        return StoredEmbeddings(
            rows=pa.concat_tables(tables).unify_dictionaries(),
            vectors=np.concatenate(vectors),
            contract=self.contract,
        )

    def add(
        self,
        stored: Iterable[StoredEmbeddings],
        *,
        labels: RowLabels | None = None,
        known: Known = "refuse",
    ) -> int:
        """Add rows; all of them are in the gallery afterwards, or none.

        Args:
            stored: what :func:`sa_runtime.outputs.read.read_embeddings` reads, one after another,
                so that more can be added than fits in memory.
            labels: what is said of all rows.
            known: ``refuse`` sources that the gallery holds already, ``replace`` their rows, or
                ``add`` to them.

        Returns:
            Rows added.

        Raises:
            InputError: a source that is known, or another process that writes.
            ContractError: vectors of another feature space.
        """
        return add_rows(self._store, stored, labels or RowLabels(), known)

    def remove(self, where: Where, *, crops: Path | str | None = None) -> int:
        """Remove rows: files that hold them are written anew without them, the old ones deleted.

        Args:
            where: which; at least one thing must be said.
            crops: a folder of crops that these rows name; they are removed first.

        Returns:
            Rows removed.

        Raises:
            InputError: nothing is said, a name that no row bears, or another process that writes.
        """
        return remove_rows(self._store, where, None if crops is None else Path(crops))

    def forget(self, *, now: datetime | None = None) -> int:
        """Remove what is older than :attr:`keep`.

        Args:
            now: the time it is; the clock's by default.

        Returns:
            Rows removed.
        """
        return forget_rows(self._store, now)

    def forget_if_possible(self) -> int:
        """As :meth:`forget`; nothing where the gallery cannot be written to now.

        What is too old is not found in either case.
        """
        try:
            return self.forget()
        except (InputError, OSError) as error:
            _log.info("%s: what is too old is not removed yet (%s)", self.path, error)
            return 0

    def set_keep(self, keep: timedelta | None) -> int:
        """Change how long rows are kept; what is too old is removed at once.

        Returns:
            Rows removed.
        """
        seconds = seconds_kept(keep)
        with self._store.changing() as manifest:
            self._store.swap(dataclasses.replace(manifest, keep_seconds=seconds))
        return self.forget()

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Keep thresholds with the gallery, or none."""
        with self._store.changing() as manifest:
            self._store.swap(dataclasses.replace(manifest, calibration=calibration))

    def compact(self) -> tuple[int, int]:
        """Write small segments as few large ones, in order.

        Returns:
            Segments before and after.
        """
        with self._store.changing() as manifest:
            before = len(self._store.segments)
            with self._store.writer() as writer:
                few = -(-len(self) // writer.most_rows)
                if before > few:
                    for segment in self._store.segments:
                        copy_rows(segment, np.arange(len(segment)), writer)
            if writer.written:
                self._store.swap(dataclasses.replace(manifest, segments=tuple(writer.written)))
        return before, len(self._store.segments)

    def search(
        self,
        query: Stored | Vectors,
        k: int = 10,
        *,
        where: Where | None = None,
        leave_out: Where | None = None,
        by: GroupBy = "row",
        exact: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Found:
        """The nearest rows of every query.

        Args:
            query: (Q, D) vectors, or what ``read_embeddings`` read.
            k: rows wanted, or tracks; fewer where the gallery has fewer.
            where: which rows are searched; all by default.
            leave_out: which are not, such as those of the query's own track.
            by: ``row``; or ``track``, the nearest row of each track, so that a person who stands
                before a camera for long takes one place.
            exact: compare every row of a gallery with an index too, as is done in any case
                where ``where``, ``leave_out`` or age leave rows of a segment out.
            memory_bytes: working memory.

        Raises:
            InputError: k below 1, vectors that do not fit, or a name that no row bears.
            ContractError: the query is of another feature space.
        """
        if k < 1:
            raise bad_value("k", k, "expected at least 1")
        if by not in get_args(GroupBy):
            raise bad_value("by", by, f"expected one of {', '.join(get_args(GroupBy))}")
        vectors = query_vectors(query, self.contract, f"the gallery {self.path}")
        # One state, though another thread may put a new one in its place meanwhile.
        segments = self._store.segments
        tables = [segment.rows for segment in segments]
        if where is not None:
            where.check_names(tables)
        parts = [self._part(segment, where, leave_out) for segment in segments]
        parts = parts or [_no_part(vectors.shape[1])]

        def nearest(wanted: int, queries: Ints) -> tuple[Ints, Floats]:
            some = vectors if len(queries) == len(vectors) else vectors[queries]
            if exact or wanted > MOST_WANTED:
                return nearest_rows(some, parts, wanted, memory_bytes=memory_bytes)
            return by_index(some, self.method, segments, parts, wanted, memory_bytes)

        total = sum(map(len, parts))
        index, distance = nearest_groups(
            nearest, len(vectors), k, total, Groups(tables).first_of_each, by
        )
        return Found(index=index, distance=distance, tables=tables, calibration=self.calibration)

    def _part(self, segment: Segment, where: Where | None, leave_out: Where | None) -> Part:
        searched = ~outlived(segment, self._store.manifest)
        if where is not None:
            searched &= where.of(segment.rows)
        if leave_out is not None:
            searched &= ~leave_out.of(segment.rows)
        return segment.part(None if searched.all() else np.flatnonzero(searched))

    def check_names(self, where: Where) -> None:
        """Refuse a name that no row bears; see ``Where.check_names``."""
        where.check_names([segment.rows for segment in self._store.segments])

    def tracks(self, source: str | None = None) -> list[int]:
        """The ids of its tracks, ascending; of one source, or of all."""
        return tracks_of([segment.rows for segment in self._store.segments], source)

    def _no_vectors(self) -> Floats:
        return np.zeros((0, self.contract.output.dim), np.float32)


def _no_part(dim: int) -> Part:
    return Part(
        vectors=np.zeros((0, dim), np.float32), norms=np.zeros(0, np.float32), total=np.zeros(dim)
    )
