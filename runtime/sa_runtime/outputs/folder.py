"""A folder of Parquet files that a run fills one after the other, and can go on filling.

When a file is finished, every vector of the items taken so far is in one, so that position and
counts are exact and a run that goes on forms the same batches as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.outputs.base import PART_ROWS, Progress, StoredEmbeddings, StoredType
from sa_runtime.outputs.manifest import MANIFEST, Manifest, Shard, differences
from sa_runtime.outputs.parquet import EmbeddingWriter, read_parquet
from sa_runtime.system.files import remove_leftovers
from sa_runtime.system.locking import owned

_log = logging.getLogger(__name__)


class ShardFolder:
    """A folder being filled; see :class:`sa_runtime.outputs.base.Output`.

    Args:
        target: the folder; made where it is missing.
        contract: of the model.
        dtype: of the stored vectors.
        plan: all that decides the rows, see :func:`sa_runtime.outputs.manifest.plan_of`.
        resume: go on where an earlier run stopped, if there was one.
        part_rows: a file ends with the picture that reaches this many rows.

    Attributes:
        manifest: the state, as it stands on the disk.

    Raises:
        InputError: embeddings are there and ``resume`` is false, or they were made from something
            else, or one of the finished files is gone or damaged.
    """

    def __init__(
        self,
        target: Path,
        contract: Contract,
        *,
        dtype: StoredType = "float32",
        plan: dict[str, Any] | None = None,
        resume: bool = False,
        part_rows: int = PART_ROWS,
    ) -> None:
        plan = plan or {}
        self.check(target, resume=resume)
        self.path = target
        self.part_rows = part_rows
        self._contract = contract
        self._dtype = dtype
        with ExitStack() as stack:
            stack.enter_context(owned(target, folder=True))
            self.check(target, resume=resume)  # another run may have begun it meanwhile
            begun = (target / MANIFEST).exists()
            self.manifest = Manifest.read(target) if begun else Manifest(plan=plan)
            self._check_plan(plan)
            if begun:
                files, rows = len(self.manifest.shards), self.manifest.rows
                _log.info("%s: goes on after %d rows in %d files", target, rows, files)
            for shard in self.manifest.shards:
                shard.check(target)
            remove_leftovers(target, r"part-\d{5}", ".parquet")
            remove_leftovers(target, Path(MANIFEST).stem, Path(MANIFEST).suffix)
            self.manifest.write(target)
            self._ownership = stack.pop_all()

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse a folder of others, and one of an earlier run unless it is to go on.

        Raises:
            InputError: it is.
        """
        begun = (target / MANIFEST).exists()
        if begun and not resume:
            raise InputError(
                f"{target}: holds {Manifest.read(target).rows} rows of an earlier run; go on with "
                "it with `resume=True`, or choose another `out`"
            )
        if not begun and (
            target.exists() and (not target.is_dir() or any(target.glob("[!.]*.parquet")))
        ):
            raise InputError(
                f"{target}: exists and was not written by `sa-deploy embed --out FOLDER`; "
                "choose another `out`"
            )

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """The finished files.

        Raises:
            InputError: the run has not come to its end, and ``unfinished`` is false.
        """
        manifest = Manifest.read(target)
        if not (manifest.complete or (unfinished and manifest.shards)):
            raise InputError(
                f"{target}: not finished, {manifest.rows} rows so far; embed again with "
                "`resume=True`, or read what is there with `unfinished=True`"
            )
        for shard in manifest.shards:
            shard.check(target)
        return [read_parquet(target / shard.file) for shard in manifest.shards]

    @property
    def progress(self) -> Progress:
        """What is stored."""
        return self.manifest.progress

    @contextmanager
    def part(self) -> Iterator[EmbeddingWriter]:
        """The next file; a part without rows leaves none, unless it would be the only one.

        That one holds the contract of a run that found no people.
        """
        name = f"part-{len(self.manifest.shards):05d}.parquet"
        with EmbeddingWriter(
            self.path / name, self._contract, self._dtype, in_owned_folder=True
        ) as writer:
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

    def commit(self, progress: Progress) -> None:
        """Replace the manifest."""
        self.manifest.position = progress.position
        self.manifest.counts = dataclasses.asdict(progress.counts)
        self.manifest.complete = progress.complete
        self.manifest.write(self.path)

    def files(self) -> list[Path]:
        """The finished files, in order."""
        return [self.path / shard.file for shard in self.manifest.shards]

    def close(self) -> None:
        """Let the next run own the folder."""
        self._ownership.close()

    def _check_plan(self, plan: dict[str, Any]) -> None:
        before = self.manifest.plan
        if "device" not in before:  # older versions did not note it
            plan = {key: value for key, value in plan.items() if key != "device"}
        if found := list(differences(before, plan)):
            raise InputError(
                f"{self.path}: cannot go on with what is there, because {'; '.join(found)}. "
                "Run it as it was begun, or choose another `out`"
            )
