"""What goes from a gallery: rows that somebody removes, and rows that are older than it keeps.

Segments that hold such rows are written anew without them and the old files deleted. The manifest
notes when, why and how many rows went, and not whose they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.gallery.crops import remove_crops
from sa_runtime.gallery.manifest import Manifest
from sa_runtime.gallery.rows import Where, expired
from sa_runtime.gallery.segments import Segment
from sa_runtime.gallery.store import Store, noted


def limit_of(manifest: Manifest, now: datetime | None = None) -> datetime | None:
    """What is older is not kept; ``None`` where everything is."""
    if manifest.keep_seconds is None:
        return None
    return (now or datetime.now(UTC)) - timedelta(seconds=manifest.keep_seconds)


def outlived(segment: Segment, manifest: Manifest) -> NDArray[np.bool_]:
    """(N,) whether each row of a segment is older than rows are kept."""
    limit = limit_of(manifest)
    if limit is None or segment.info.oldest >= limit.timestamp():
        return np.zeros(len(segment), np.bool_)
    return expired(segment.rows, limit)


def remove_rows(store: Store, where: Where, crops: Path | None) -> int:
    """Remove rows, and before them the crops that they name; see ``Gallery.remove``."""
    if where.everything:
        raise InputError(
            "nothing says which rows are to be removed; name a source, a camera, a person, a "
            "track or a time, or delete the gallery's folder"
        )
    with store.changing() as manifest:
        tables = [segment.rows for segment in store.segments]
        where.check_names(tables)
        if crops is not None:
            remove_crops(crops, tables, where)
        return _drop(store, manifest, "removed", lambda segment: where.of(segment.rows))


def forget_rows(store: Store, now: datetime | None) -> int:
    """Remove rows that are older than they are kept; see ``Gallery.forget``."""
    limit = limit_of(store.manifest, now)
    if limit is None or not any(
        info.oldest < limit.timestamp() for info in store.manifest.segments
    ):
        return 0
    with store.changing() as manifest:
        return _drop(store, manifest, "forgotten", lambda segment: expired(segment.rows, limit))


def _drop(
    store: Store, manifest: Manifest, why: str, gone: Callable[[Segment], NDArray[np.bool_]]
) -> int:
    segments, removed = store.without(gone)
    if removed:
        store.swap(dataclasses.replace(noted(manifest, why, removed), segments=segments))
    return removed
