"""What a search gives: rows and distances, by row or by track."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from sa_runtime.gallery.calibration import Calibration, Verdict
from sa_runtime.gallery.rows import ROW_SCHEMA
from sa_runtime.retrieval.vectors import Floats, Ints

GroupBy = Literal["row", "track"]
NOBODY = -1
"""Stands where a query has fewer results than others."""

Nearest = Callable[[int, Ints], tuple[Ints, Floats]]
"""Number of rows wanted and which queries -> (Q, k) rows and distances."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The nearest rows of every query, nearest first; of equal ones the lower row first.

    Its fields never change, so that threads may share it; none should write into its arrays.

    Attributes:
        index: (Q, k) int64 rows of the gallery as it was searched; :data:`NOBODY` at the end of a
            query that has fewer.
        distance: (Q, k) float32 squared Euclidean distances; infinite for nobody.
        tables: the gallery's rows, segment after segment.
        known: in their place, what is known of each row that was found, by its number.
        calibration: the gallery's, if it has one.
    """

    index: Ints
    distance: Floats
    tables: Sequence[pa.Table] = ()
    known: Mapping[int, dict[str, Any]] | None = None
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, query: int, *, camera: str | None = None) -> list[dict[str, Any]]:
        """What is known of the rows found for a query.

        Args:
            query: its number.
            camera: that saw the query, where that is known: pairs of cameras may have thresholds
                of their own.

        Returns:
            For each row ``rank`` (from 1), ``distance``, ``verdict`` (``None`` without calibration)
            and its columns.
        """
        rows = []
        for rank, row in enumerate(self._lookup(self.index[query])):
            distance = float(self.distance[query, rank])
            verdict = None
            if self.calibration is not None:
                verdict = self.calibration.verdict(distance, (camera, row["camera"]))
            rows.append({"rank": rank + 1, "distance": distance, "verdict": verdict, **row})
        return rows

    def _lookup(self, index: Ints) -> list[dict[str, Any]]:
        if self.known is None:
            return lookup(self.tables, index)
        columns = dict.fromkeys(ROW_SCHEMA.names)
        return [columns | self.known[number] for number in index[index != NOBODY].tolist()]

    def verdict(self, query: int, *, camera: str | None = None) -> Verdict | None:
        """The best verdict of its rows; ``None`` without calibration."""
        if self.calibration is None:
            return None
        said = {row["verdict"] for row in self.rows(query, camera=camera)}
        verdicts: tuple[Verdict, ...] = ("match", "perhaps")
        return next((verdict for verdict in verdicts if verdict in said), "nobody")


def lookup(tables: Sequence[pa.Table], index: Ints) -> list[dict[str, Any]]:
    """The columns of some rows, in the order asked for; none of :data:`NOBODY`."""
    index = index[index != NOBODY]
    ends = np.cumsum([len(table) for table in tables])
    where = np.searchsorted(ends, index, side="right")
    rows: list[dict[str, Any]] = []
    for number, segment in zip(index.tolist(), where.tolist(), strict=True):
        first = int(ends[segment]) - len(tables[segment])
        rows.extend(tables[segment].slice(number - first, 1).to_pylist())
    return rows


def nearest_groups(
    nearest: Nearest,
    queries: int,
    k: int,
    total: int,
    first_of_each: Callable[[Ints], Ints],
    by: GroupBy,
) -> tuple[Ints, Floats]:
    """The nearest rows, or the nearest row of each of the nearest tracks.

    Args:
        nearest: finds rows.
        queries: Q.
        k: rows or tracks wanted.
        total: rows that are searched.
        first_of_each: rows -> the positions of the first one of each track.
        by: what counts once.

    Returns:
        (Q, k') rows and distances; see :class:`Found`.
    """
    waiting, k = np.arange(queries), max(1, min(k, total))
    if by == "row":
        return nearest(k, waiting)
    index = np.full((queries, k), NOBODY)
    distance = np.full((queries, k), np.inf, np.float32)
    wanted = 4 * k
    while len(waiting):
        rows, far = nearest(wanted, waiting)
        still = []
        for query, row, distances in zip(waiting.tolist(), rows, far, strict=True):
            # An index may find fewer rows than were asked for.
            row, distances = row[row != NOBODY], distances[row != NOBODY]
            first = first_of_each(row)[:k]
            if len(first) < k and wanted < total:
                still.append(query)
                continue
            index[query, : len(first)] = row[first]
            distance[query, : len(first)] = distances[first]
        waiting, wanted = np.array(still, np.int64), 8 * wanted
    width = int((index != NOBODY).sum(axis=1).max(initial=0))
    return index[:, :width], distance[:, :width]


class Groups:
    """Which rows are of one track; a row without track stands for itself."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._tables = tables
        self._ends = np.cumsum([len(table) for table in tables])

    def first_of_each(self, index: Ints) -> Ints:
        """Positions of the first row of each track, ascending."""
        seen: set[Any] = set()
        first = []
        segment = np.searchsorted(self._ends, index, side="right")
        keys: list[Any] = [None] * len(index)
        for which in np.unique(segment).tolist():
            here = np.flatnonzero(segment == which)
            start = int(self._ends[which]) - len(self._tables[which])
            rows = pa.array(index[here] - start)
            some = self._tables[which].select(["source", "track_id"]).take(rows)
            pairs = zip(some["source"].to_pylist(), some["track_id"].to_pylist(), strict=True)
            for position, (source, track) in zip(here.tolist(), pairs, strict=True):
                keys[position] = int(index[position]) if track is None else (source, track)
        for position, key in enumerate(keys):
            if key not in seen:
                seen.add(key)
                first.append(position)
        return np.array(first, np.int64)
