"""One vector for each track, made of the rows of a run as they come.

The vector is the mean of the track's crops, weighted by their qualities, of unit length; the row is
that of its best crop. A track is told by its source and number, and whole when its source is, so
that memory holds the tracks of one source: a small record each, the sums of their vectors lie in a
temporary file.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.errors import bad_value
from sa_runtime.items import Row, TrackRow
from sa_runtime.outputs.base import Output, Progress, Writer
from sa_runtime.outputs.columns import slices
from sa_runtime.outputs.table import lasts, output_kind
from sa_runtime.system.remote import address_of

_LEAST_WEIGHT = 1e-6
"""Of a crop of no quality at all: a track of nothing else is their plain mean."""
_FIRST_TRACKS = 256
_ROWS = 1024
"""Tracks that are written at a time."""
_RELEASED_BYTES = 64 * 2**20
"""Of sums that were touched before the system may take their memory back."""


def check_tracks(target: str, outs: Sequence[str]) -> None:
    """Refuse a file of tracks that cannot be one.

    Raises:
        InputError: a folder or database, or an output of the run.
    """
    address = address_of(target)
    kind = output_kind(target if address is None else f"x{Path(address).suffix}")
    if lasts(kind):
        raise bad_value("tracks", target, "expected one file, NAME.parquet, NAME.npz or NAME.csv")
    places = [address_of(out) or Path(out).resolve() for out in outs]
    if (address or Path(target).resolve()) in places:
        raise bad_value("tracks", target, "is `out` too; tracks need a file of their own")


class TrackFile:
    """Tracks of rows, in an output of one file; see :class:`sa_runtime.outputs.base.Output`.

    Args:
        file: where they go, opened with ``tracks`` among its options.
        dim: length of a vector.
    """

    part_rows: int | None = None

    def __init__(self, file: Output, dim: int) -> None:
        self._file = file
        self._dim = dim
        self.count = 0

    @property
    def progress(self) -> Progress:
        """What is stored."""
        return self._file.progress

    @contextmanager
    def part(self) -> Iterator[Writer]:
        """The whole file."""
        with self._file.part() as writer, TrackMeans(writer, self._dim) as means:
            yield means
            means.finish()
            self.count = writer.count

    def commit(self, progress: Progress) -> None:
        """Remember it for as long as the run lasts."""
        self._file.commit(progress)

    def files(self) -> list[Path | str]:
        """The file."""
        return self._file.files()

    def size_bytes(self) -> int:
        """Of the file."""
        return self._file.size_bytes()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


class TrackMeans:
    """Takes rows, source after source, and writes those of tracks.

    Rows without a track's number are passed over.

    Args:
        writer: gets a :class:`TrackRow` and a vector for each track, in the order in which they
            begin.
        dim: length of a vector.
    """

    def __init__(self, writer: Writer, dim: int) -> None:
        self.count = 0
        self._writer = writer
        self._sums = _Sums(dim)
        self._source = ""
        self._places: dict[int, int] = {}
        self._tracks: list[TrackRow] = []

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Take N rows and their (N, D) vectors."""
        start = 0
        while start < len(rows):
            source, stop = rows[start].source, start + 1
            while stop < len(rows) and rows[stop].source == source:
                stop += 1
            if source != self._source:
                self.finish()
                self._source = source
            self._add(rows[start:stop], vectors[start:stop])
            start = stop
        self.count += len(rows)

    def finish(self) -> None:
        """Write the tracks of the source that was read."""
        count = len(self._tracks)
        for some in slices(count, _ROWS):
            # They have every field of a row, and more.
            rows = cast(Sequence[Row], self._tracks[some])
            self._writer.write(rows, self._sums.directions(some))
        self._tracks, self._places = [], {}
        self._sums.clear(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sums.close()

    def _add(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        places, weights, kept = [], [], []
        for index, row in enumerate(rows):
            if row.track_id is None:
                continue
            place = self._places.setdefault(row.track_id, len(self._tracks))
            if place == len(self._tracks):
                self._tracks.append(_begun(row))
            else:
                self._tracks[place] = _longer(self._tracks[place], row)
            places.append(place)
            weights.append(_weight(row))
            kept.append(index)
        if places:
            self._sums.add(np.array(places), np.array(weights), vectors[kept])


def _weight(row: Row | TrackRow) -> float:
    # In the precision of the column, so that stored rows give the same tracks.
    return 1.0 if row.quality is None else max(float(np.float32(row.quality)), _LEAST_WEIGHT)


def _begun(row: Row) -> TrackRow:
    return TrackRow(
        **row._asdict(),
        crops=1,
        first_frame=row.frame,
        last_frame=row.frame,
        first_timestamp_s=row.timestamp_s,
        last_timestamp_s=row.timestamp_s,
    )


def _longer(track: TrackRow, row: Row) -> TrackRow:
    """The track with one crop more; of two as good the earlier is its best."""
    best = row._asdict() if _weight(row) > _weight(track) else {}
    return track._replace(
        **best,
        crops=track.crops + 1,
        last_frame=row.frame,
        last_timestamp_s=row.timestamp_s,
    )


class _Sums:
    """(T, D) float64 sums in a temporary file without a name, which grows with T."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        with ExitStack() as stack:
            self._file = stack.enter_context(tempfile.TemporaryFile(prefix="sa-deploy-tracks-"))
            self._array = np.zeros((0, dim))
            self._grow(_FIRST_TRACKS)
            self._stack = stack.pop_all()
        self._touched = 0

    def add(
        self, places: NDArray[np.int64], weights: NDArray[np.float64], more: Embeddings
    ) -> None:
        """Add N weighted vectors, one after the other."""
        while places.max() >= len(self._array):
            self._grow(2 * len(self._array))
        np.add.at(self._array, places, weights[:, None] * more)
        self._touched += more.nbytes
        if self._touched >= _RELEASED_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            # Of a shared mapping the file keeps what was written.
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def directions(self, some: slice) -> Embeddings:
        """(N, D) float32 of unit length."""
        sums = self._array[some]
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(sums / np.where(length > 0, length, 1), np.float32)

    def clear(self, count: int) -> None:
        """Set the first sums to 0."""
        self._array[:count] = 0

    def close(self) -> None:
        """Give the file back."""
        self._stack.close()

    def _grow(self, tracks: int) -> None:
        # Written, not only made longer: a full disk is then an error here, not a signal later.
        self._file.write(bytes(8 * self._dim * (tracks - len(self._array))))
        self._file.flush()
        size = 8 * self._dim * tracks
        self._mapping = mmap.mmap(self._file.fileno(), size)
        self._array = np.frombuffer(self._mapping, np.float64).reshape(tracks, self._dim)
