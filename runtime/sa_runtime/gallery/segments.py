"""Segments: folders of some rows of a gallery, written once and never changed.

``vectors.npy`` (N, D) and ``norms.npy`` (N,) are read in place, as is ``rows.arrow``, so that
opening a gallery loads nothing.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.gallery.approximate import Index, Method, OnIndex, build_index, kind_of
from sa_runtime.gallery.rows import ROW_SCHEMA, every_column, in_schema, oldest, track_numbers
from sa_runtime.gallery.scan import Part
from sa_runtime.outputs.base import StoredType
from sa_runtime.retrieval.vectors import Floats, Vectors
from sa_runtime.system.files import naming

FOLDER = "segments"
VECTORS, NORMS, ROWS = "vectors.npy", "norms.npy", "rows.arrow"
MOST_BYTES = 2**31
"""Of the vectors of a segment; what is removed costs the writing of at most so much."""
_COPIED = 16_384
"""Rows that are copied at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentInfo:
    """What the manifest says of a segment.

    Attributes:
        name: of its folder.
        rows: number of rows.
        oldest: when its oldest row was taken or added, in seconds since 1970.
        total: (D,) sum of its vectors.
        size_bytes: of each of its files, by name.
        recall: of its index, as measured when that was built; ``None`` without one.
    """

    name: str
    rows: int
    oldest: float
    total: tuple[float, ...]
    size_bytes: dict[str, int]
    recall: float | None = None


class Segment:
    """A segment that is read.

    Args:
        gallery: the gallery's folder.
        info: what the manifest says of it.

    Attributes:
        info: as given.
        path: its folder.
        vectors: (N, D) float16 or float32 on disk.
        norms: (N,) float32 squared lengths on disk.
        rows: the columns of :data:`sa_runtime.gallery.rows.ROW_SCHEMA` on disk.

    Raises:
        FileNotFoundError: a file is not there, as when another process has just replaced it.
        InputError: a file that is not as it was written.
    """

    def __init__(self, gallery: Path, info: SegmentInfo) -> None:
        self.info = info
        self._index: Index | None = None
        self.path = gallery / FOLDER / info.name
        for name, size in info.size_bytes.items():
            found = (self.path / name).stat().st_size
            if found != size:
                raise InputError(
                    f"{self.path / name}: has {found} bytes, its gallery says {size}; the file was "
                    "changed or cut, take it from a backup or index again",
                    path=self.path / name,
                )
        try:
            self.vectors: Vectors = np.load(self.path / VECTORS, mmap_mode="r")
            self.norms: Floats = np.load(self.path / NORMS, mmap_mode="r")
            with pa.memory_map(str(self.path / ROWS)) as file:
                self.rows: pa.Table = every_column(pa.ipc.open_file(file).read_all())
        except (ValueError, EOFError, pa.ArrowInvalid) as exc:
            raise InputError(
                f"{self.path}: cannot be read ({exc}); take it from a backup or index again",
                path=self.path,
            ) from exc
        shape = (info.rows, len(info.total))
        if self.vectors.shape != shape or len(self.norms) != info.rows != len(self.rows):
            raise InputError(
                f"{self.path}: holds vectors of shape {self.vectors.shape}, its gallery says "
                f"{shape}; take it from a backup or index again",
                path=self.path,
            )

    def __len__(self) -> int:
        return self.info.rows

    def index(self, method: Method) -> Index:
        """Its index, opened once: that takes as long as many searches.

        Raises:
            InputError: a file that is not as it was written.
        """
        if self._index is None:
            kind = kind_of(method)
            file = self.path / kind.FILE
            try:
                self._index = kind.opened(file)
            except (ValueError, RuntimeError, OSError) as exc:
                raise InputError(
                    f"{file}: cannot be read ({str(exc)[:80]}); take it from a backup or index "
                    "again; a search with `exact=True` does without it",
                    path=file,
                ) from exc
        return self._index

    def part(self, keep: NDArray[np.int64] | None = None) -> Part:
        """Its rows, or some of them, to be searched."""
        total = np.array(self.info.total)
        return Part(vectors=self.vectors, norms=self.norms, total=total, keep=keep)


class SegmentWriter:
    """Writes vectors and rows as segments, each of at most so many; they are on disk afterwards.

    They count only once a manifest names them.

    Args:
        gallery: the gallery's folder.
        dim: numbers in a vector.
        dtype: of the stored vectors.
        most_rows: rows of a segment.
        method: of the index that is written beside the vectors, if any.
        on_index: told how far an index is.

    Attributes:
        written: the finished segments; all of them when the block has ended well.
        most_rows: as given, or what :data:`MOST_BYTES` hold.
    """

    def __init__(
        self,
        gallery: Path,
        dim: int,
        dtype: StoredType,
        *,
        most_rows: int | None = None,
        method: Method = "exact",
        on_index: OnIndex | None = None,
    ) -> None:
        self.written: list[SegmentInfo] = []
        self._gallery, self._dim, self._dtype = gallery, dim, np.dtype(dtype)
        self._method, self._on_index = method, on_index
        self.most_rows = most_rows or max(1, MOST_BYTES // (dim * self._dtype.itemsize))
        self._open: _OpenSegment | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            with naming(self._gallery):
                self._finish()
            return
        if self._open is not None:
            self._open.abandon()
        for info in self.written:
            remove_segment(self._gallery, info.name)

    def write(self, rows: pa.Table, vectors: Vectors) -> None:
        """Append N rows of :data:`ROW_SCHEMA` and their (N, D) vectors."""
        with naming(self._gallery):
            self._write(rows, vectors)

    def _write(self, rows: pa.Table, vectors: Vectors) -> None:
        start = 0
        while start < len(rows):
            if self._open is None:
                self._open = _OpenSegment(self._gallery, self._dim, self._dtype)
            stop = min(len(rows), start + self.most_rows - self._open.count)
            self._open.write(rows.slice(start, stop - start), vectors[start:stop])
            start = stop
            if self._open.count >= self.most_rows:
                self._finish()

    def _finish(self) -> None:
        if self._open is not None:
            self.written.append(self._open.finish(self._method, self._on_index))
            self._open = None


class _OpenSegment:
    def __init__(self, gallery: Path, dim: int, dtype: np.dtype[np.floating]) -> None:
        self.count = 0
        self._gallery, self._dim, self._dtype = gallery, dim, dtype
        self._name = secrets.token_hex(8)
        self._path = gallery / FOLDER / f".{self._name}.partial"
        self._path.mkdir(parents=True)
        self._file = (self._path / VECTORS).open("wb")
        self._header(0)
        self._norms: list[Floats] = []
        self._rows: list[pa.Table] = []
        self._total = np.zeros(dim)

    def write(self, rows: pa.Table, vectors: Vectors) -> None:
        for start in range(0, len(rows), _COPIED):
            # What is stored is what is measured, rounded as it is.
            stored = np.ascontiguousarray(vectors[start : start + _COPIED], self._dtype)
            exact = stored.astype(np.float32, copy=False)
            self._norms.append(np.einsum("nd,nd->n", exact, exact))
            self._total += exact.sum(axis=0, dtype=np.float64)
            self._file.write(stored.data)
        self._rows.append(rows)
        self.count += len(rows)

    def finish(self, method: Method, on_index: OnIndex | None) -> SegmentInfo:
        self._file.seek(0)
        self._header(self.count)
        self._file.close()
        with (self._path / NORMS).open("wb") as file:
            np.save(file, np.concatenate(self._norms))
        rows = in_schema(pa.concat_tables(self._rows))
        with pa.ipc.new_file(str(self._path / ROWS), ROW_SCHEMA) as writer:
            writer.write_table(rows)
        names, recall = [VECTORS, NORMS, ROWS], None
        vectors = np.load(self._path / VECTORS, mmap_mode="r")
        part = Part(vectors=vectors, norms=np.concatenate(self._norms), total=self._total)
        built = build_index(method, self._path, part, lambda: track_numbers(rows), on_index)
        if built is not None:
            names.append(built[0])
            recall = built[1]
        sizes = {name: _to_disk(self._path / name) for name in names}
        final = self._gallery / FOLDER / self._name
        self._path.rename(final)
        _to_disk(final)
        _to_disk(final.parent)
        return SegmentInfo(
            name=self._name,
            rows=self.count,
            oldest=oldest(rows) or 0.0,
            total=tuple(self._total.tolist()),
            size_bytes=sizes,
            recall=recall,
        )

    def abandon(self) -> None:
        with suppress(OSError):  # what is still buffered meets the full disk again
            self._file.close()
        shutil.rmtree(self._path, ignore_errors=True)

    def _header(self, rows: int) -> None:
        # The first axis has room in the header, so that it can be written again when it is known.
        write_header(self._file, rows, self._dim, self._dtype)


def write_header(file: BinaryIO, rows: int, dim: int, dtype: np.dtype[np.floating]) -> None:
    """The head of a NumPy file, of the same length whatever the number of rows."""
    fields = {"descr": dtype.str, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, fields)


def remove_segment(gallery: Path, name: str) -> None:
    """Remove a segment's files; its folder first gets the name of a leftover."""
    path = gallery / FOLDER / name
    gone = path.with_name(f".{name}.partial")
    if path.exists():
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def leftovers(gallery: Path, names: set[str]) -> Iterator[str]:
    """Segments that no manifest names: of writers that were killed."""
    if (gallery / FOLDER).is_dir():
        for path in (gallery / FOLDER).iterdir():
            name = path.name.removeprefix(".").removesuffix(".partial")
            if path.is_dir() and (path.name.startswith(".") or name not in names):
                yield name


def _to_disk(path: Path) -> int:
    """Wait until a file or folder is on the disk; its size in bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
