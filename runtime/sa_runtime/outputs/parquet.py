"""Parquet files of embeddings: one row a person, the contract in the metadata."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.errors import ContractError, InputError, MissingFileError, bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.base import PART_ROWS, Progress, StoredEmbeddings, StoredType
from sa_runtime.system.files import HashedFile, atomic_path, remove_leftovers
from sa_runtime.system.locking import owned

SPACE_KEY = "sa_deploy.space"
ROW_GROUP_BYTES = 16 * 2**20
"""Vectors held in memory before they are written; also the size of a row group."""


ROW_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("frame", pa.int64()),
        pa.field("timestamp_s", pa.float64()),
        pa.field("track_id", pa.int64()),
        pa.field("left", pa.float32(), nullable=False),
        pa.field("top", pa.float32(), nullable=False),
        pa.field("width", pa.float32(), nullable=False),
        pa.field("height", pa.float32(), nullable=False),
        pa.field("confidence", pa.float32()),
        pa.field("camera", pa.string()),
    ]
)
"""The columns of :class:`Row`; ``embedding``, a list of D float32 or float16, follows them."""


class EmbeddingWriter:
    """Writes rows and their vectors; the file appears whole when the ``with`` block ends well.

    One thread writes at a time; another writer of the same file is refused meanwhile.

    Args:
        path: the Parquet file.
        contract: of the model; it and its feature space go into the file's metadata.
        dtype: ``float32`` or ``float16`` (half the size, 1e-3 of accuracy).
        in_owned_folder: the caller owns the folder, see :func:`sa_runtime.system.locking.owned`.

    Attributes:
        count: rows written so far.
        size_bytes, sha256: of the file, once the block has ended.

    Raises:
        InputError: an unknown ``dtype``, a file that cannot be written, or that another writes.
    """

    def __init__(
        self,
        path: Path | str,
        contract: Contract,
        dtype: StoredType = "float32",
        *,
        in_owned_folder: bool = False,
    ) -> None:
        if dtype not in get_args(StoredType):
            raise bad_value("dtype", dtype, f"expected one of {', '.join(get_args(StoredType))}")
        self.path = Path(path)
        self.count = 0
        self.size_bytes = 0
        self.sha256 = ""
        self._in_owned_folder = in_owned_folder
        self._dim = contract.output.dim
        self._dtype = np.dtype(dtype)
        metadata = {SPACE_KEY: contract.space, METADATA_KEY: contract.to_json()}
        self._schema = ROW_SCHEMA.append(
            pa.field("embedding", _vector_type(self._dtype, self._dim), nullable=False)
        ).with_metadata(metadata)
        self._group = max(1, ROW_GROUP_BYTES // (self._dim * self._dtype.itemsize))
        self._rows: list[Row] = []
        self._vectors: list[NDArray[np.floating]] = []
        self._stack = ExitStack()
        self._discarded = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                if not self._in_owned_folder:
                    stack.enter_context(owned(self.path))
                    stem, suffix = re.escape(self.path.stem), self.path.suffix
                    remove_leftovers(self.path.parent, stem, suffix)
                temporary = stack.enter_context(atomic_path(self.path))
                self._file = stack.enter_context(HashedFile(temporary))
                # Vectors neither repeat nor compress; the other columns do.
                writer = pq.ParquetWriter(
                    self._file,
                    self._schema,
                    use_dictionary=["source", "camera"],
                    compression=dict.fromkeys(ROW_SCHEMA.names, "SNAPPY"),
                )
            except OSError as exc:
                raise InputError(f"{self.path}: cannot be written ({exc})") from exc
            self._writer = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                if self._discarded:
                    raise _DiscardedError
                self._flush()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                if isinstance(failure, _DiscardedError):
                    return
                raise
        self._stack.__exit__(kind, error, trace)
        self.size_bytes, self.sha256 = self._file.size_bytes, self._file.sha256

    def discard(self) -> None:
        """Leave no file behind when the block ends."""
        self._discarded = True

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Append rows.

        Args:
            rows: N rows.
            vectors: (N, D) float32; row i belongs to row i.

        Raises:
            InputError: the counts or D disagree.
        """
        if vectors.shape != (len(rows), self._dim):
            raise InputError(
                f"{self.path}: vectors of shape {vectors.shape} for {len(rows)} rows, "
                f"expected {(len(rows), self._dim)}"
            )
        self._rows.extend(rows)
        self._vectors.append(vectors.astype(self._dtype))
        self.count += len(rows)
        if len(self._rows) >= self._group:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*self._rows, strict=True), ROW_SCHEMA, strict=True)
        ]
        flat = pa.array(np.concatenate(self._vectors).ravel())
        columns.append(
            pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("embedding").type)
        )
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._vectors = [], []


class _DiscardedError(Exception):
    """Tells the temporary file that it is not to get its name."""


class ParquetFile:
    """One file, which appears when all is embedded; see :class:`sa_runtime.outputs.base.Output`."""

    part_rows: int | None = None

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
        self.check(target, resume=resume)
        self.progress = Progress()
        self._target = target
        self._contract = contract
        self._dtype = dtype

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse to go on: what was stored of one file is not known.

        Raises:
            InputError: ``resume`` is set.
        """
        if resume:
            raise bad_value(
                "resume", True, f"{target} is one file; choose a folder as `out` to go on with"
            )

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """The file."""
        return [read_parquet(target)]

    def part(self) -> EmbeddingWriter:
        """The whole file."""
        return EmbeddingWriter(self._target, self._contract, self._dtype)

    def commit(self, progress: Progress) -> None:
        """Remember it for as long as the run lasts."""
        self.progress = progress

    def files(self) -> list[Path]:
        """The one file."""
        return [self._target]

    def close(self) -> None:
        """Nothing is held."""


def read_parquet(path: Path) -> StoredEmbeddings:
    """Read one file.

    Raises:
        InputError: a file that is missing or not Parquet.
        ContractError: a file without a feature space, or of a changed one.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as exc:
        raise MissingFileError(
            f"{path}: no such file; expected one that `sa-deploy embed` wrote", path=path
        ) from exc
    except (OSError, pa.ArrowInvalid) as exc:
        raise InputError(
            f"{path}: not a Parquet file that can be read ({exc}); "
            "expected a file that `sa-deploy embed` wrote"
        ) from exc
    metadata = table.schema.metadata or {}
    texts = [metadata.get(key.encode()) for key in (SPACE_KEY, METADATA_KEY)]
    if texts[0] is None or texts[1] is None:
        raise ContractError(
            f"{path}: no feature space in its metadata (keys {SPACE_KEY}, {METADATA_KEY}), so its "
            "vectors cannot be compared; expected a file that `sa-deploy embed` wrote"
        )
    contract = Contract.from_json(texts[1].decode(), source=str(path))
    if contract.space != texts[0].decode():
        raise ContractError(
            f"{path}: its metadata says space {texts[0].decode()}, its contract {contract.space}; "
            "the file was changed, embed again"
        )
    return StoredEmbeddings(
        rows=table.drop_columns("embedding").replace_schema_metadata(None),
        vectors=_vectors(table, contract.output.dim, path),
        contract=contract,
    )


def _vectors(table: pa.Table, dim: int, path: Path) -> Embeddings:
    """(N, dim) float32 of the column, which must be what the contract says.

    Raises:
        InputError: it is absent, of another width, or holds a number that is not finite.
    """
    stored = table.schema.field("embedding").type if "embedding" in table.column_names else None
    if stored is None or not (
        pa.types.is_fixed_size_list(stored)
        and stored.list_size == dim
        and pa.types.is_floating(stored.value_type)
        and not table["embedding"].null_count
    ):
        raise InputError(
            f"{path}: its column 'embedding' is {stored or 'absent'}, its contract says {dim} "
            "numbers a row; vectors that were changed need a contract of their own, embed again",
            path=path,
        )
    chunks = [chunk.flatten().to_numpy() for chunk in table["embedding"].chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    vectors = flat.astype(np.float32, copy=False).reshape(-1, dim)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(
            f"{path}: the vector of row {row} is not finite; leave the row out, or embed again",
            path=path,
        )
    return vectors


def _vector_type(dtype: np.dtype[np.floating], dim: int) -> pa.DataType:
    return pa.list_(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False), dim)
