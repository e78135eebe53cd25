"""Searching segments by their indexes, and scanning those that have none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sa_runtime.gallery.approximate import Method, index_rows
from sa_runtime.gallery.found import NOBODY
from sa_runtime.gallery.scan import Part, nearest_rows
from sa_runtime.gallery.segments import Segment
from sa_runtime.retrieval.vectors import Floats, Ints


def by_index(
    query: Floats,
    method: Method,
    segments: Sequence[Segment],
    parts: Sequence[Part],
    k: int,
    memory_bytes: int,
) -> tuple[Ints, Floats]:
    """As :func:`sa_runtime.gallery.scan.nearest_rows`, by the indexes that segments have.

    Args:
        query: (Q, D).
        method: of the gallery.
        segments: all of them.
        parts: what is searched of each; of which rows are left out is scanned.
        k: rows wanted.
        memory_bytes: working memory.

    Returns:
        (Q, k) rows and distances; :data:`NOBODY` at the end where fewer were found.
    """
    rest, indexed, first = list(parts), [], 0
    for number, segment in enumerate(segments):
        if segment.info.recall is not None and parts[number].keep is None:
            rest[number] = segment.part(np.empty(0, np.int64))
            indexed.append((first, segment, parts[number]))
        first += len(segment)
    found = nearest_rows(query, rest, k, memory_bytes=memory_bytes)
    for first, segment, part in indexed:
        rows, distance = index_rows(segment.index(method), query, min(k, len(segment)), part)
        found = _merged(found, (np.where(rows < 0, NOBODY, rows + first), distance), k)
    return found


def _merged(one: tuple[Ints, Floats], two: tuple[Ints, Floats], k: int) -> tuple[Ints, Floats]:
    """The k nearest of two lists; of equal distances the lower row first."""
    index = np.concatenate([one[0], two[0]], axis=1)
    distance = np.concatenate([one[1], two[1]], axis=1)
    order = np.lexsort((index, distance), axis=1)[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(distance, order, axis=1)
