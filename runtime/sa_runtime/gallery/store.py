"""How the state of a gallery changes: whole or not at all, by one process at a time."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.errors import InputError, bad_value
from sa_runtime.gallery.approximate import OnIndex
from sa_runtime.gallery.manifest import MANIFEST, UNFINISHED, Manifest
from sa_runtime.gallery.segments import (
    FOLDER,
    Segment,
    SegmentInfo,
    SegmentWriter,
    leftovers,
    remove_segment,
)
from sa_runtime.retrieval.vectors import Ints
from sa_runtime.system.files import remove_leftovers
from sa_runtime.system.locking import owned

_TRIES = 20
_COPIED = 16_384
"""Rows that are copied at a time."""


class Store:
    """The files of a gallery.

    Args:
        path: its folder.
        new: the state in which a gallery begins that is made by the first change; nothing of it is
            left where that fails.

    Attributes:
        path: as given.
        manifest: the state that was read last.
        segments: what it names.
        on_index: told how far an index is that is built; nobody by default.

    Raises:
        MissingFileError: no gallery is there.
        InputError: its files are damaged.
        ContractError: its contract was changed.
    """

    manifest: Manifest
    segments: list[Segment]

    def __init__(self, path: Path, *, new: Manifest | None = None) -> None:
        self.path, self._new = path, new
        self.on_index: OnIndex | None = None
        if new is None:
            self._load()
        else:
            check_target(path)
            self.manifest, self.segments = new, []

    def _load(self) -> None:
        """Open what the manifest names; another process may replace it meanwhile."""
        for last in range(_TRIES):
            manifest = Manifest.read(self.path)
            try:
                self.segments = [Segment(self.path, info) for info in manifest.segments]
                self.manifest = manifest
                return
            except FileNotFoundError as exc:
                if last == _TRIES - 1 or Manifest.read(self.path) == manifest:
                    raise InputError(
                        f"{exc.filename}: is missing from the gallery; take it from a backup or "
                        "index again",
                        path=exc.filename,
                    ) from exc

    @contextmanager
    def changing(self) -> Iterator[Manifest]:
        """Be the only writer, on the newest state."""
        if self._new is not None:
            with self._making():
                yield self._new
            return
        if not (self.path / MANIFEST).exists():
            Manifest.read(self.path)  # says that it is gone
        with owned(self.path, folder=True):
            self._load()
            self._clean()
            (self.path / UNFINISHED).unlink(missing_ok=True)
            yield self.manifest

    @contextmanager
    def _making(self) -> Iterator[None]:
        """Be the only writer of a folder that is no gallery yet."""
        made = not self.path.exists()
        try:
            with owned(self.path, folder=True):
                check_target(self.path)
                (self.path / UNFINISHED).touch()
                try:
                    self._clean()
                    yield
                finally:
                    if self._new is not None:
                        shutil.rmtree(self.path / FOLDER, ignore_errors=True)
                        (self.path / UNFINISHED).unlink(missing_ok=True)
        finally:
            if made and self._new is not None:
                with suppress(OSError):  # another has come meanwhile
                    self.path.rmdir()

    def _clean(self) -> None:
        """Remove what writers left that were killed."""
        for name in leftovers(self.path, {info.name for info in self.manifest.segments}):
            remove_segment(self.path, name)
        remove_leftovers(self.path, Path(MANIFEST).stem, Path(MANIFEST).suffix)

    def swap(self, manifest: Manifest) -> None:
        """Let another state count, and delete the files that only the old one had."""
        old = {info.name for info in self.manifest.segments}
        manifest.write(self.path)
        if self._new is not None:
            self._new = None
            (self.path / UNFINISHED).unlink()
        self._load()
        for name in old - {info.name for info in manifest.segments}:
            remove_segment(self.path, name)

    def writer(self) -> SegmentWriter:
        """Of new segments."""
        manifest = self.manifest
        return SegmentWriter(
            self.path,
            manifest.contract.output.dim,
            manifest.dtype,
            method=manifest.method,
            on_index=self.on_index,
        )

    def without(
        self, dropped: Callable[[Segment], NDArray[np.bool_]]
    ) -> tuple[tuple[SegmentInfo, ...], int]:
        """The segments without some rows, in order, and how many those are.

        Args:
            dropped: segment -> (N,) whether each row goes.
        """
        kept: list[SegmentInfo] = []
        removed = 0
        for segment in self.segments:
            gone = dropped(segment)
            removed += int(gone.sum())
            if not gone.any():
                kept.append(segment.info)
            elif not gone.all():
                with self.writer() as writer:
                    copy_rows(segment, np.flatnonzero(~gone), writer)
                kept.extend(writer.written)
        return tuple(kept), removed


def check_target(path: Path) -> None:
    """Refuse a folder that holds something else than a new gallery may.

    Raises:
        InputError: it is no folder, or something is in it.
    """
    if path.exists() and not path.is_dir():
        raise bad_value("out", str(path), "a file; expected a folder for the gallery")
    if (path / MANIFEST).exists():
        raise bad_value("out", str(path), "a gallery is there; add to it, or choose another folder")
    if path.is_dir() and not {entry.name for entry in path.iterdir() if entry.name[0] != "."} <= (
        {FOLDER} if (path / UNFINISHED).exists() else set()
    ):
        raise bad_value("out", str(path), "is not empty and no gallery; choose another folder")


def copy_rows(segment: Segment, rows: Ints, writer: SegmentWriter) -> None:
    """Write some rows of a segment again."""
    for start in range(0, len(rows), _COPIED):
        some = rows[start : start + _COPIED]
        writer.write(segment.rows.take(pa.array(some)), segment.vectors[some])


def noted(manifest: Manifest, why: str, rows: int) -> Manifest:
    """The manifest with a note that says that rows went, and not whose they were."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"when": when, "why": why, "rows": rows}
    return dataclasses.replace(manifest, removals=(*manifest.removals, note))
