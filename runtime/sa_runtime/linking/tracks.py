"""Tracks with one vector each, from stored embeddings.

Shape suffixes: T tracks, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.datasets.base import DISTRACTOR, JUNK, ReidDataset
from sa_runtime.errors import InputError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.retrieval.stored import StoredImages

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """One person followed by a tracker under one camera, T times.

    Attributes:
        source: (T,) file the track comes from; two tracks of one source that overlap in time are
            two persons.
        camera: (T,) names of cameras; the source's name where its rows have none.
        number: (T,) the tracker's number, within its source.
        start, end: (T,) seconds, or frames where rows have no time; NaN where neither is known.
        rows: (T,) boxes of the track.
        vectors: (T, D) float32, the mean of the boxes' vectors, of unit length.
    """

    source: tuple[str, ...]
    camera: tuple[str, ...]
    number: Ints
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    rows: Ints
    vectors: Embeddings

    def __len__(self) -> int:
        return len(self.source)

    @property
    def keys(self) -> list[tuple[str, int]]:
        """What names a track: its source and number."""
        return list(zip(self.source, self.number.tolist(), strict=True))

    def camera_index(self) -> Ints:
        """(T,) cameras as numbers from 0, in the order of their names."""
        names = {name: index for index, name in enumerate(sorted(set(self.camera)))}
        return np.array([names[name] for name in self.camera], np.int64)

    def together(self) -> NDArray[np.bool_]:
        """(T, T) whether two tracks are seen at once in one source, so that they are two persons.

        A track that ends in the frame in which another begins counts as seen at once.
        """
        names = {name: index for index, name in enumerate(dict.fromkeys(self.source))}
        source = np.array([names[name] for name in self.source], np.int64)
        with np.errstate(invalid="ignore"):
            overlap = (self.start[:, None] <= self.end) & (self.start <= self.end[:, None])
        found: NDArray[np.bool_] = overlap & (source[:, None] == source)
        np.fill_diagonal(found, False)
        return found


def tracks_of(stored: StoredEmbeddings, *, name: str = "embeddings") -> Tracks:
    """The tracks of rows that have a track's number; other rows are passed over.

    Args:
        stored: of videos with tracked boxes, or of tracks, one row each.
        name: what the embeddings are called, for messages.

    Raises:
        InputError: no row has a number.
    """
    columns = {key: stored.rows[key].to_pylist() for key in ("source", "track_id", "camera")}
    kept = [row for row, number in enumerate(columns["track_id"]) if number is not None]
    if not kept:
        raise InputError(
            f"{name}: no row has a track_id; expected boxes of a tracker: embed with detections "
            "that have track numbers"
        )
    index: dict[tuple[str, int], int] = {}
    keys = [(columns["source"][row], int(columns["track_id"][row])) for row in kept]
    of_row = np.array([index.setdefault(key, len(index)) for key in keys], np.int64)
    first, last = _times(stored, kept)
    start, end = np.full(len(index), np.inf), np.full(len(index), -np.inf)
    np.minimum.at(start, of_row, first)
    np.maximum.at(end, of_row, last)
    crops = _crops(stored, kept)
    cameras: dict[int, str] = {}
    for row, track in zip(kept, of_row.tolist(), strict=True):
        fallback = PurePath(columns["source"][row]).name
        cameras.setdefault(track, columns["camera"][row] or fallback)
    return Tracks(
        source=tuple(source for source, _ in index),
        camera=tuple(cameras[track] for track in range(len(index))),
        number=np.array([number for _, number in index], np.int64),
        start=start,
        end=end,
        rows=np.bincount(of_row, crops, minlength=len(index)).astype(np.int64),
        vectors=mean_vectors(stored.vectors[kept], of_row, len(index)),
    )


def tracks_of_dataset(
    stored: StoredEmbeddings, dataset: ReidDataset, *, name: str = "embeddings"
) -> tuple[Tracks, Ints]:
    """Labelled tracks: the images of a person under a camera of a data set are one.

    Args:
        stored: embeddings of the data set's queries and gallery.
        dataset: whose junk and distractors are left out.
        name: what the embeddings are called, for messages.

    Returns:
        The tracks, of unknown time, and (T,) who they show.

    Raises:
        InputError: an image without its row.
    """
    samples = [
        sample
        for sample in (*dataset.query, *dataset.gallery)
        if sample.person not in (JUNK, DISTRACTOR)
    ]
    vectors = StoredImages(stored, dataset.root, name=name)([one.path for one in samples])
    index: dict[tuple[int, int], int] = {}
    of_row = np.array([index.setdefault((s.person, s.camera), len(index)) for s in samples])
    unknown = np.full(len(index), np.nan)
    tracks = Tracks(
        source=tuple(f"camera {camera}" for _, camera in index),
        camera=tuple(f"camera {camera}" for _, camera in index),
        number=np.arange(len(index)),
        start=unknown,
        end=unknown,
        rows=np.bincount(of_row, minlength=len(index)).astype(np.int64),
        vectors=mean_vectors(vectors, of_row, len(index)),
    )
    return tracks, np.array([person for person, _ in index], np.int64)


def mean_vectors(vectors: Embeddings, of_row: Ints, count: int) -> Embeddings:
    """(count, D) float32 means of the rows of each track, of unit length."""
    total = np.zeros((count, vectors.shape[1]))
    np.add.at(total, of_row, vectors)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.where(length > 0, length, 1), np.float32)


def join(parts: Sequence[Tracks]) -> Tracks:
    """Tracks of several files as one.

    Raises:
        InputError: none, or a track in two of them.
    """
    if not parts:
        raise InputError("no tracks given: expected at least one file")
    keys = [key for part in parts for key in part.keys]
    if len(set(keys)) < len(keys):
        source, number = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"track {number} of {source}: given twice; leave one of the files out")
    stacked: dict[str, Any] = {
        field: np.concatenate([getattr(part, field) for part in parts])
        for field in ("number", "start", "end", "rows", "vectors")
    }
    return Tracks(
        source=tuple(name for part in parts for name in part.source),
        camera=tuple(name for part in parts for name in part.camera),
        **stacked,
    )


def _times(
    stored: StoredEmbeddings, kept: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last seconds of each row, or frames where any has no time; else NaN.

    They differ where a row is a whole track.
    """
    for column in ("timestamp_s", "frame"):
        if not stored.rows[column].null_count:
            return (
                _of_track(stored, f"first_{column}", column)[list(kept)],
                _of_track(stored, f"last_{column}", column)[list(kept)],
            )
    unknown = np.full(len(kept), np.nan)
    return unknown, unknown


def _crops(stored: StoredEmbeddings, kept: Sequence[int]) -> NDArray[np.float64]:
    """Crops that each row stands for."""
    if "crops" not in stored.rows.column_names:
        return np.ones(len(kept))
    return np.asarray(pc.fill_null(stored.rows["crops"], 1).to_numpy(), np.float64)[list(kept)]


def _of_track(stored: StoredEmbeddings, name: str, otherwise: str) -> NDArray[np.float64]:
    """A column that tracks have, or another where a row is a crop."""
    values = stored.rows[otherwise]
    if name in stored.rows.column_names:
        values = pc.coalesce(stored.rows[name], values)
    return np.asarray(values.to_numpy(), np.float64)
