"""A folder of Parquet files that a run fills one after the other, and can go on filling.

Each shard is a pipeline of its own over the next items: when it ends, every vector of the items
taken so far is written, so that position and counts are exact and a run that goes on forms the same
batches as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST, Manifest, Position, Shard, differences
from sa_runtime.outputs.parquet import EmbeddingWriter, Row, StoredType
from sa_runtime.pipeline.stages import Item, PipelineResult, Sink, run_pipeline
from sa_runtime.runners.base import Runner
from sa_runtime.sources.find import Images, Source, SourceCounts
from sa_runtime.sources.reader import frame_digest

SHARD_ROWS = 50_000
SHARD_SECONDS = 600.0
"""A shard is also closed after so long, since a stopped run loses what was not."""


class ShardFolder:
    """A folder being filled.

    Args:
        path: the folder; made where it is missing.
        plan: all that decides the rows, see :func:`plan_of`.
        contract: of the model.
        dtype: of the stored vectors.
        resume: go on where an earlier run stopped, if there was one.

    Attributes:
        manifest: the state; ``manifest.rows`` are already there.
        counts: of the sources, those of earlier runs included.
        outside: boxes outside their picture, likewise.

    Raises:
        InputError: embeddings are there and ``resume`` is false, or they were made from something
            else, or one of the finished files is gone or damaged.
    """

    def __init__(
        self,
        path: Path,
        plan: dict[str, Any],
        contract: Contract,
        dtype: StoredType = "float32",
        *,
        resume: bool = False,
    ) -> None:
        self.path = path
        self._contract = contract
        self._dtype: StoredType = dtype
        begun = (path / MANIFEST).exists()
        if begun and not resume:
            raise InputError(
                f"{path}: holds {Manifest.read(path).rows} rows of an earlier run; go on with it "
                "with --resume, or choose another --out"
            )
        if not begun and (path.exists() and (not path.is_dir() or any(path.glob("*.parquet")))):
            raise InputError(
                f"{path}: exists and was not written by `sa-deploy embed --out FOLDER`; "
                "choose another --out"
            )
        self.manifest = Manifest.read(path) if begun else Manifest(plan=plan)
        self._check(plan)
        for torn in path.glob(".*.partial*"):
            torn.unlink(missing_ok=True)
        counts = dict(self.manifest.counts)
        self.outside: int = counts.pop("outside", 0)
        self.counts = SourceCounts(**counts)
        self.manifest.write(path)

    def _check(self, plan: dict[str, Any]) -> None:
        if found := list(differences(self.manifest.plan, plan)):
            raise InputError(
                f"{self.path}: cannot go on with what is there, because {'; '.join(found)}. "
                "Run it as it was begun, or choose another --out"
            )
        for shard in self.manifest.shards:
            try:
                rows = pq.read_metadata(self.path / shard.file).num_rows
            except (OSError, pa.ArrowInvalid) as exc:
                raise InputError(
                    f"{self.path / shard.file}: a finished file is gone or damaged ({exc}); "
                    "choose another --out"
                ) from exc
            if rows != shard.rows:
                raise InputError(
                    f"{self.path / shard.file}: {rows} rows, expected {shard.rows}; it was changed "
                    "after it was written, choose another --out"
                )

    def fill(
        self,
        items: Iterator[Item],
        position: Position,
        runner: Runner,
        sink: Sink,
        *,
        batch_size: int = 32,
        max_delay_ms: float | None = None,
        shard_rows: int = SHARD_ROWS,
    ) -> PipelineResult:
        """Embed what is left, shard by shard.

        Args:
            items: from :func:`sa_runtime.sources.find.source_items` with :attr:`counts` and
                ``position``; closed by the caller.
            position: that the items move on.
            runner: an open model.
            sink: told of rows and vectors once they are handed to the writer.
            batch_size: see :func:`sa_runtime.pipeline.stages.run_pipeline`.
            max_delay_ms: likewise.
            shard_rows: a file ends with the picture that reaches so many boxes.

        Returns:
            The sums over the shards.
        """
        total = PipelineResult()
        while not self.manifest.complete:
            part = _Part(items, shard_rows)
            name = f"part-{len(self.manifest.shards):05d}.parquet"
            try:
                with EmbeddingWriter(self.path / name, self._contract, self._dtype) as writer:

                    def both(
                        rows: Sequence[Row],
                        vectors: Embeddings,
                        write: Sink = writer.write,
                    ) -> None:
                        write(rows, vectors)
                        sink(rows, vectors)

                    result = run_pipeline(
                        part, runner, both, batch_size=batch_size, max_delay_ms=max_delay_ms
                    )
                    # A run without any rows leaves one empty file, which holds the contract.
                    if not writer.count and self.manifest.shards:
                        raise _NothingToWriteError
                self.manifest.shards.append(Shard(file=name, rows=writer.count))
            except _NothingToWriteError:
                pass
            _add(total, result)
            self.outside += result.outside
            self.manifest.position = dataclasses.replace(position, digest=part.digest)
            self.manifest.counts = {**dataclasses.asdict(self.counts), "outside": self.outside}
            self.manifest.complete = part.ended
            self.manifest.write(self.path)
        return total


class _NothingToWriteError(Exception):
    """Leaves the writer's block without a file."""


class _Part:
    """Items up to so many boxes or seconds; not a generator, so that the items stay open."""

    def __init__(self, items: Iterator[Item], rows: int) -> None:
        self._items = items
        self._left = rows
        self._stop = time.monotonic() + SHARD_SECONDS
        self._last: Item | None = None
        self.ended = False

    @property
    def digest(self) -> str:
        """Of the last video frame taken."""
        seconds = None if self._last is None else self._last.rows[0].timestamp_s
        if self._last is None or seconds is None:
            return ""
        return frame_digest(self._last.image, seconds)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._last is not None and (self._left <= 0 or time.monotonic() >= self._stop):
            raise StopIteration
        try:
            item = next(self._items)
        except StopIteration:
            self.ended = True
            raise
        self._left -= len(item.rows)
        self._last = item
        return item


def plan_of(
    sources: Sequence[Source],
    contract: Contract,
    *,
    runtime: str,
    **options: str | float | bool | None,
) -> dict[str, Any]:
    """What decides the rows of a run, to compare it with one that goes on.

    Videos are known by path, size and boxes, images by path and size: their pixels are not read.

    Args:
        sources: that are embedded.
        contract: of the model.
        runtime: that computes the vectors, with its precision.
        options: further ones that change rows.
    """
    return {
        "model": {
            "space": contract.space,
            "embedding": contract.output.embedding,
            "dim": contract.output.dim,
            "precision": contract.precision,
            "weights_sha256": contract.weights_sha256,
            "contract": _digest(contract.to_json().encode()),
        },
        "runtime": runtime,
        "options": options,
        "sources": [_described(source) for source in sources],
    }


def _described(source: Source) -> dict[str, Any]:
    if isinstance(source, Images):
        known = "\n".join(f"{path} {path.stat().st_size}" for path in source.paths)
        return {"images": len(source), "paths_and_sizes": _digest(known.encode())}
    found = source.detections
    arrays = (found.frames, found.track_ids, found.ltwh, found.confidences)
    return {
        "video": str(source.path),
        "size_bytes": source.path.stat().st_size,
        "boxes": len(found),
        "detections": _digest(b"".join(array.tobytes() for array in arrays)),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _add(total: PipelineResult, part: PipelineResult) -> None:
    for field in dataclasses.fields(PipelineResult):
        setattr(total, field.name, getattr(total, field.name) + getattr(part, field.name))
