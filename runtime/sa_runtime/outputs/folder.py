"""A folder of Parquet files that a run fills one after the other, and can go on filling.

When a file is finished, every vector of the items taken so far is in one, so that position and
counts are exact and a run that goes on forms the same batches as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from sa_runtime.arrays import Embeddings
from sa_runtime.errors import InputError, bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.base import OutputOptions, StoredEmbeddings, Writer
from sa_runtime.outputs.columns import ROW_NUMBER, rows_of, slices
from sa_runtime.outputs.journal import Journal
from sa_runtime.outputs.manifest import Manifest, Shard
from sa_runtime.outputs.parquet import EmbeddingWriter, NumberedWriter, read_parquet
from sa_runtime.outputs.partition import PartitionedPart, check_partition, part_number
from sa_runtime.system.files import remove_leftovers

_ROWS = 4096
"""Rows that are given again at a time."""


class ShardFolder(Journal):
    """A folder being filled; see :class:`sa_runtime.outputs.base.Lasting`.

    With ``options.partition`` a part is a file for each folder that its rows belong to.
    """

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """The finished files; of a partitioned folder its parts, their rows in the run's order.

        Raises:
            InputError: the run has not come to its end, and ``unfinished`` is false.
        """
        return list(cls.each(target, unfinished=unfinished))

    @classmethod
    def each(cls, target: Path, *, unfinished: bool = False) -> Iterator[StoredEmbeddings]:
        """What :meth:`read` gives, one after another."""
        manifest = Manifest.read(target)
        require_end(target, manifest, unfinished=unfinished)
        for shard in manifest.shards:
            shard.check(target)
        for shards in _parts(manifest):
            yield _part(target, shards)

    def stored(self, start: int) -> Iterator[tuple[Sequence[Row], Embeddings]]:
        """The rows from a number on, in order, with their vectors."""
        first = 0
        for shards in _parts(self.manifest):
            count = sum(shard.rows for shard in shards)
            if first + count > start:
                part = _part(self.path, shards)
                for piece in slices(count, _ROWS):
                    begin = max(piece.start, start - first)
                    if begin < piece.stop:
                        rows = part.rows.slice(begin, piece.stop - begin)
                        yield rows_of(rows), part.vectors[begin : piece.stop]
            first += count

    @contextmanager
    def part(self) -> Iterator[Writer]:
        """The next file; a part without rows leaves none, unless it would be the only one.

        That one holds the contract of a run that found no people.
        """
        if self.manifest.partition:
            opened = PartitionedPart(
                self._numbered, self.manifest.partition, self._next, self.manifest.rows
            )
            with opened as part:
                yield part
            self.manifest.shards += part.shards
            if self.manifest.shards:
                return
        name = f"part-{self._next:05d}.parquet"
        with EmbeddingWriter(
            self.path / name, self._contract, self._dtype, in_owned_folder=True
        ) as writer:
            if not self.manifest.partition:
                yield writer
            if not writer.count and self.manifest.shards:
                writer.discard()
        if writer.count or not self.manifest.shards:
            self.manifest.shards.append(
                Shard(
                    file=name,
                    rows=writer.count,
                    size_bytes=writer.size_bytes,
                    sha256=writer.sha256,
                )
            )

    def files(self) -> list[Path | str]:
        """The finished files, in order."""
        return [self.path / shard.file for shard in self.manifest.shards]

    def size_bytes(self) -> int:
        """Of the files."""
        return sum((self.path / shard.file).stat().st_size for shard in self.manifest.shards)

    @classmethod
    def _is_of_others(cls, target: Path) -> bool:
        return any(target.glob("[!.]*.parquet"))

    def _begin(self, options: OutputOptions, *, begun: bool) -> None:
        check_partition(options.partition)
        if begun and list(options.partition) != self.manifest.partition:
            before = ",".join(self.manifest.partition) or None
            raise bad_value(
                "partition",
                ",".join(options.partition) or None,
                f"{self.path} was begun with `partition={before!r}`; run it as it was begun, or "
                "choose another `out`",
            )
        self.manifest.partition = list(options.partition)
        self._check_files(self.manifest.shards)

    def _check_files(self, shards: Sequence[Shard]) -> None:
        """Refuse finished files that changed, and remove what a stopped run left behind them.

        Raises:
            InputError: one is gone or damaged.
        """
        for shard in shards:
            shard.check(self.path)
        # What was being written, or got its name but no place in the manifest.
        for folder in {self.path, *(path.parent for path in self.path.glob("*=*/**/*part-*"))}:
            remove_leftovers(folder, r"part-\d{5,}(?:-\d{5,})?", ".parquet")
        for path in [*self.path.glob("part-*.parquet"), *self.path.glob("*=*/**/part-*.parquet")]:
            number = part_number(path)
            if number is not None and number >= self._next:
                path.unlink()

    @property
    def _next(self) -> int:
        """Number of the part that comes."""
        numbers = (part_number(Path(shard.file)) for shard in self.manifest.shards[-1:])
        return 1 + max((number for number in numbers if number is not None), default=-1)

    def _numbered(self, name: str) -> NumberedWriter:
        return NumberedWriter(self.path / name, self._contract, self._dtype, in_owned_folder=True)


def require_end(target: Path, manifest: Manifest, *, unfinished: bool) -> None:
    """Refuse to read what is not finished.

    Raises:
        InputError: it is not, and ``unfinished`` is false or there is nothing.
    """
    if not (manifest.complete or (unfinished and manifest.shards)):
        raise InputError(
            f"{target}: not finished, {manifest.rows} rows so far; embed again with "
            "`resume=True`, or read what is there with `unfinished=True`"
        )


def _parts(manifest: Manifest) -> list[list[Shard]]:
    """The files of each part."""
    if not manifest.partition:
        return [[shard] for shard in manifest.shards]
    parts: dict[int | None, list[Shard]] = {}
    for shard in manifest.shards:
        parts.setdefault(part_number(Path(shard.file)), []).append(shard)
    return list(parts.values())


def _part(folder: Path, shards: Sequence[Shard]) -> StoredEmbeddings:
    """The rows of a part, in the order of the run."""
    read = [read_parquet(folder / shard.file) for shard in shards]
    if ROW_NUMBER.name not in read[0].rows.column_names:
        return read[0]
    return in_order(read)


def in_order(read: Sequence[StoredEmbeddings]) -> StoredEmbeddings:
    """The rows of several files as one, sorted by their numbers, which are dropped."""
    table = pa.concat_tables([one.rows for one in read])
    order = np.argsort(table[ROW_NUMBER.name].to_numpy(), kind="stable")
    return StoredEmbeddings(
        rows=table.drop_columns(ROW_NUMBER.name).take(pa.array(order)),
        vectors=np.concatenate([one.vectors for one in read])[order],
        contract=read[0].contract,
    )
