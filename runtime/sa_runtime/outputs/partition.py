"""Dividing the files of a folder by source, camera or day.

Folders are named as Hive names them, ``camera_name=north/day=2026-11-27/``, so that readers of
partitioned tables (pyarrow, DuckDB, Spark) open only what they are asked for. The names differ from
those of the columns, which stay in the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.errors import bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.manifest import Shard
from sa_runtime.outputs.parquet import NumberedWriter

NOTHING = "none"
"""Stands where a row has no camera, or no day."""
_DATE = re.compile(r"(?<!\d)(20\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d{1,5}\b)")
_EPOCH_S = 1e9
"""Times above are seconds since 1970, as live sources stamp them; others count from the start."""
_MOST_BYTES = 255
"""Of a name, on the usual file systems."""
_OPEN = 128
"""So many files of a part are written at a time; what comes again later gets another one."""


def day_of(row: Row) -> str:
    """The UTC day of a row's wall clock, else the date in its source's name, the last one.

    >>> row = Row("cams/2026-11-26/c1_20261127.mp4", 1, 0.1, None, 0, 0, 9, 9, None, None)
    >>> day_of(row), day_of(row._replace(timestamp_s=1795773600.0))
    ('2026-11-27', '2026-11-27')
    >>> day_of(row._replace(source="c1.mp4")) == NOTHING
    True
    """
    if row.timestamp_s is not None and row.timestamp_s >= _EPOCH_S:
        return datetime.fromtimestamp(row.timestamp_s, UTC).strftime("%Y-%m-%d")
    found = _DATE.findall(row.source)
    return "-".join(found[-1]) if found else NOTHING


PARTITIONS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "source": ("source_name", lambda row: re.split(r"[/\\]", row.source.rstrip("/\\"))[-1]),
    "camera": ("camera_name", lambda row: row.camera or NOTHING),
    "day": ("day", day_of),
}
"""What files can be divided by -> name in the folders, and the value of a row."""


def check_partition(partition: Sequence[str]) -> None:
    """Refuse what files cannot be divided by.

    Raises:
        InputError: an unknown name, or one that comes twice.
    """
    for name in partition:
        if name not in PARTITIONS or list(partition).count(name) > 1:
            raise bad_value(
                "partition",
                ",".join(partition),
                f"expected some of {', '.join(PARTITIONS)}, each once",
            )


def folder_of(row: Row, partition: Sequence[str]) -> str:
    """The folder of a row, below that of the run.

    >>> row = Row("a/b c.mp4", 1, 0.1, None, 0, 0, 9, 9, None, "door/2")
    >>> folder_of(row, ["camera", "source"])
    'camera_name=door%2F2/source_name=b%20c.mp4'
    """
    parts = (PARTITIONS[name] for name in partition)
    return "/".join(_named(name, value(row)) for name, value in parts)


def _named(name: str, value: str) -> str:
    """A folder's name; a value that is too long for one is cut, and told from others by a hash.

    >>> _named("camera_name", "Tür/1"), _named("camera_name", "x" * 300)[-12:]
    ('camera_name=Tür%2F1', 'xxx~0d4e2ca9')
    """
    whole = f"{name}=" + "".join(
        sign if sign.isprintable() and not sign.isascii() else quote(sign, safe="")
        for sign in value
    )
    if len(whole.encode()) <= _MOST_BYTES:
        return whole
    mark = f"~{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    short = whole.encode()[: _MOST_BYTES - len(mark)].decode(errors="ignore")
    return re.sub(r"%.?$", "", short) + mark


class PartitionedPart:
    """Writes the rows of one part, each into the file of its folder.

    Args:
        open_writer: opens the writer of a file, by its name below the folder of the run.
        partition: what files are divided by.
        number: of the part.
        first: number of its first row in the run.

    Attributes:
        count: rows written so far.
        shards: the files, once the block has ended well.
    """

    def __init__(
        self,
        open_writer: Callable[[str], NumberedWriter],
        partition: Sequence[str],
        number: int,
        first: int,
    ) -> None:
        self.count = 0
        self.shards: list[Shard] = []
        self._open = open_writer
        self._partition = partition
        self._number = number
        self._first = first
        self._files = 0
        self._writers: dict[str, tuple[str, NumberedWriter]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            while self._writers:
                self._finish(next(iter(self._writers)))
            return
        with ExitStack() as stack:
            for _, writer in self._writers.values():
                stack.push(writer)
            if error is not None:
                stack.__exit__(kind, error, trace)

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Append rows, see :meth:`sa_runtime.outputs.file_writer.FileWriter.write`."""
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(folder_of(row, self._partition), []).append(index)
        for folder, chosen in groups.items():
            writer = self._writer(folder)
            writer.numbers += [self._first + self.count + index for index in chosen]
            writer.write([rows[index] for index in chosen], vectors[np.array(chosen)])
        self.count += len(rows)

    def _writer(self, folder: str) -> NumberedWriter:
        if folder not in self._writers:
            if len(self._writers) >= _OPEN:
                self._finish(next(iter(self._writers)))
            name = f"{folder}/part-{self._number:05d}-{self._files:05d}.parquet"
            self._files += 1
            self._writers[folder] = name, self._open(name).__enter__()
        found = self._writers.pop(folder)
        self._writers[folder] = found  # the one that was used last stands last
        return found[1]

    def _finish(self, folder: str) -> None:
        name, writer = self._writers.pop(folder)
        writer.__exit__(None, None, None)
        self.shards.append(
            Shard(file=name, rows=writer.count, size_bytes=writer.size_bytes, sha256=writer.sha256)
        )


def part_number(path: Path) -> int | None:
    """Which part a file belongs to; ``None`` for files of others.

    >>> part_number(Path("day=2026-11-27/part-00003-00001.parquet")), part_number(Path("a.parquet"))
    (3, None)
    """
    found = re.fullmatch(r"part-(\d{5,})(?:-\d{5,})?\.parquet", path.name)
    return int(found[1]) if found else None
