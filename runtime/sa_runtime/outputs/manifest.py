"""What a folder of embeddings holds, and where the run that writes it goes on.

The manifest is replaced as a whole after every finished shard. It is named so that readers of
folders of Parquet files (pyarrow, Spark) pass over it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.items import Counts, Position
from sa_runtime.outputs.base import Progress
from sa_runtime.system.files import atomic_path, sha256_of

MANIFEST = "_manifest.json"
SCHEMA = "sa-deploy.embeddings/2"
_READ = ("sa-deploy.embeddings/1", SCHEMA)
"""Version 1 had no settings and no partitions."""

_WHOLE: set[tuple[Path, int, int, int, str]] = set()
"""Files that this process has compared and that have not changed since."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A finished Parquet file.

    Attributes:
        file: name in the folder.
        rows: in it.
        size_bytes, sha256: of it; 0 and empty in manifests of version 0.1, which had neither.
    """

    file: str
    rows: int
    size_bytes: int = 0
    sha256: str = ""

    def check(self, folder: Path) -> None:
        """Raise InputError unless the file is there as it was written."""
        path = folder / self.file
        try:
            if self.sha256:
                status = path.stat()
                key = (path, status.st_ino, status.st_size, status.st_mtime_ns, self.sha256)
                whole = status.st_size == self.size_bytes and (
                    key in _WHOLE or sha256_of(path) == self.sha256
                )
                if whole:
                    _WHOLE.add(key)
            else:
                whole = pq.read_metadata(path).num_rows == self.rows
        except (OSError, pa.ArrowInvalid) as exc:
            raise InputError(
                f"{path}: a finished file is gone or damaged ({exc}); choose another `out`",
                path=path,
            ) from exc
        if not whole:
            raise InputError(
                f"{path}: was changed after it was written, with {self.rows} rows; "
                "choose another `out`",
                path=path,
            )


@dataclasses.dataclass(kw_only=True)
class Manifest:
    """The state of a folder.

    Attributes:
        plan: all that decides the rows: model, runtime, sources, options; JSON values only.
        shards: finished files, in order.
        position: behind the last row of the last shard.
        counts: of what was met up to there, as the run keeps them; JSON values only.
        complete: whether nothing is left to embed.
        partition: what the files are divided by.
        contract: of the model, where the rows are not in files that hold it.
        settings: of the run that made it, or went on with it last; they decide nothing.
    """

    plan: dict[str, Any]
    shards: list[Shard] = dataclasses.field(default_factory=list)
    position: Position = dataclasses.field(default_factory=Position)
    counts: dict[str, Any] = dataclasses.field(default_factory=dict)
    complete: bool = False
    partition: list[str] = dataclasses.field(default_factory=list)
    contract: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def progress(self) -> Progress:
        """How far the rows of the shards have come."""
        return Progress(
            rows=self.rows,
            position=self.position,
            counts=Counts(**self.counts),
            complete=self.complete,
        )

    def write(self, folder: Path) -> None:
        """Write or replace the folder's manifest.

        Raises:
            InputError: it cannot be written.
        """
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2) + "\n"
        try:
            with atomic_path(folder / MANIFEST) as temporary:
                temporary.write_text(text)
        except OSError as exc:
            raise InputError(f"{folder / MANIFEST}: cannot be written ({exc})") from exc

    @classmethod
    def read(cls, folder: Path, *, name: str = "") -> Manifest:
        """Read a folder's manifest; ``name`` is what a message calls it.

        Raises:
            InputError: there is none, or it is not one that this version wrote.
        """
        path = folder / MANIFEST
        try:
            fields = json.loads(path.read_text())
            if fields.pop("schema", None) not in _READ:
                raise ValueError(f"its schema is not {' or '.join(_READ)}")
            fields["shards"] = [Shard(**shard) for shard in fields["shards"]]
            fields["position"] = Position(**fields["position"])
            return cls(**fields)
        except FileNotFoundError as exc:
            raise InputError(
                f"{name or folder}: no stored embeddings in it, since it has no {MANIFEST}; "
                "expected a folder that `sa-deploy embed --out FOLDER` wrote",
                path=folder,
            ) from exc
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InputError(
                f"{name or path}: not a manifest that can be read ({exc}); "
                "expected a folder that `sa-deploy embed --out FOLDER` wrote"
            ) from exc


def plan_of(
    contract: Contract,
    *,
    runtime: str,
    device: str,
    sources: Sequence[dict[str, Any]],
    **options: str | float | bool | None,
) -> dict[str, Any]:
    """What decides the rows of a run, to compare it with one that goes on.

    Args:
        contract: of the model.
        runtime: name and precision of what computes the vectors.
        device: what it computes on, without a number.
        sources: the identity of each, in order.
        options: further ones that change rows.
    """
    return {
        "model": {
            "space": contract.space,
            "embedding": contract.output.embedding,
            "dim": contract.output.dim,
            "precision": contract.precision,
            "weights_sha256": contract.weights_sha256,
            "contract": hashlib.sha256(contract.to_json().encode()).hexdigest()[:16],
        },
        "runtime": runtime,
        "device": device,
        "options": options,
        "sources": list(sources),
    }


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two plans, one text a value.

    >>> list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    ['a.b was 1 and is 3']
    """
    if isinstance(before, list) and isinstance(now, list):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if not (isinstance(before, dict) and isinstance(now, dict)):
        if before != now:
            yield f"{name} was {_shown(before)} and is {_shown(now)}"
        return
    for key in [*before, *(key for key in now if key not in before)]:
        path = f"{name}.{key}" if name else str(key)
        yield from differences(before.get(key), now.get(key), path)


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
