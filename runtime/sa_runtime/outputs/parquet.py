"""Parquet files of embeddings: one row a person, the contract in the metadata."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.errors import ContractError, InputError, MissingFileError
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredEmbeddings, require_unit_length
from sa_runtime.outputs.columns import (
    ROW_NUMBER,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    brought_up,
    row_table,
)
from sa_runtime.outputs.file_writer import FileWriter
from sa_runtime.outputs.one_file import OneFile
from sa_runtime.system.files import HashedFile

SPACE_KEY = "sa_deploy.space"


class EmbeddingWriter(FileWriter):
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

    _further: ClassVar[tuple[pa.Field, ...]] = ()

    def _begin(self, file: HashedFile, stack: ExitStack) -> None:
        columns = pa.schema([*self._columns, *self._further])
        self._schema = columns.append(
            pa.field("embedding", vector_type(self._dtype, self._dim), nullable=False)
        ).with_metadata(metadata_of(self._contract))
        # Vectors neither repeat nor compress; the other columns do.
        writer = pq.ParquetWriter(
            file,
            self._schema,
            use_dictionary=["source", "camera"],
            compression=dict.fromkeys(columns.names, "SNAPPY"),
        )
        self._writer = stack.enter_context(writer)

    def _append(self, rows: list[Row], vectors: NDArray[np.floating]) -> None:
        columns = [*row_table(rows, self._columns).columns, vector_array(vectors)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))


class NumberedWriter(EmbeddingWriter):
    """Also writes which row of the run each is, for files that hold them in another order.

    Attributes:
        numbers: of the rows that are to be written, given before they are.
    """

    _further = (ROW_NUMBER,)

    def __enter__(self) -> NumberedWriter:
        self.numbers: list[int] = []
        return super().__enter__()

    def _append(self, rows: list[Row], vectors: NDArray[np.floating]) -> None:
        numbers = pa.array(self.numbers[: len(rows)], pa.int64())
        columns = [*row_table(rows, self._columns).columns, numbers, vector_array(vectors)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        del self.numbers[: len(rows)]


class ParquetFile(OneFile):
    """One file, which appears when all is embedded; see :class:`sa_runtime.outputs.base.Output`."""

    writer = EmbeddingWriter

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """The file."""
        return [read_parquet(target)]


def metadata_of(contract: Contract) -> dict[str, str]:
    """What the schema of a file or table says of its vectors."""
    return {
        SPACE_KEY: contract.space,
        METADATA_KEY: contract.to_json(),
        SCHEMA_KEY: str(SCHEMA_VERSION),
    }


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
    return stored_in(table, path)


def stored_in(table: pa.Table, path: Path | str) -> StoredEmbeddings:
    """What a table holds that was written with :func:`metadata_of` in its schema.

    Raises:
        InputError: vectors that are absent, of another width or not finite.
        ContractError: no feature space, or a changed one.
    """
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
    vectors = vectors_of(table, contract.output.dim, path)
    rows = table.drop_columns("embedding").replace_schema_metadata(None)
    version = metadata.get(SCHEMA_KEY.encode(), b"1").decode()
    return StoredEmbeddings(
        rows=brought_up(rows, int(version) if version.isdecimal() else 1, str(path)),
        vectors=vectors,
        contract=contract,
    )


def vectors_of(table: pa.Table, dim: int, path: Path | str) -> Embeddings:
    """(N, dim) float32 of the column, which must be what the contract says.

    Raises:
        InputError: it is absent, of another width, or holds a vector that is not of unit length.
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
    require_unit_length(vectors, path)
    return vectors


def vector_array(vectors: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """(N, D) as a column."""
    kind = vector_type(vectors.dtype, vectors.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)


def vector_type(dtype: np.dtype[np.floating], dim: int) -> pa.DataType:
    """The type of the column of vectors."""
    return pa.list_(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False), dim)
