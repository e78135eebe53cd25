"""NPZ files: one NumPy array for the vectors and one for each column.

Nulls are -1 in columns of integers, NaN in those of floats, and empty texts.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import ContractError, InputError
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredEmbeddings, require_unit_length
from sa_runtime.outputs.columns import (
    SCHEMA_VERSION,
    TRACK_SCHEMA,
    brought_up,
    row_table,
    slices,
)
from sa_runtime.outputs.file_writer import FileWriter
from sa_runtime.outputs.one_file import OneFile
from sa_runtime.system.files import HashedFile

CONTRACT, SCHEMA, VECTORS = "contract", "schema", "embedding"
_PIECE = 2**24


class NpzWriter(FileWriter):
    """Writes an NPZ file; columns are held in memory, vectors beside the file until its end."""

    def _begin(self, file: HashedFile, stack: ExitStack) -> None:
        # An array's length stands at its start, and is known at the end.
        raw = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 (closed by the stack)
        self._raw = stack.enter_context(raw)
        self._archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED))
        self._tables: list[pa.Table] = []

    def _append(self, rows: list[Row], vectors: NDArray[np.floating]) -> None:
        self._tables.append(row_table(rows, self._columns))
        self._raw.write(np.ascontiguousarray(vectors).data)

    def _end(self) -> None:
        self._raw.seek(0)
        pieces = iter(lambda: self._raw.read(_PIECE), b"")
        self._add(VECTORS, self._dtype, (self.count, self._dim), pieces, zipfile.ZIP_STORED)
        table = pa.concat_tables([self._columns.empty_table(), *self._tables])
        for field in self._columns:
            column = _column(table[field.name].combine_chunks(), field)
            parts = (np.ascontiguousarray(column[part]).tobytes() for part in _parts(column))
            self._add(field.name, column.dtype, column.shape, parts, zipfile.ZIP_DEFLATED)
        for name, value in ((CONTRACT, self._contract.to_json()), (SCHEMA, str(SCHEMA_VERSION))):
            text = np.array(value)
            self._add(name, text.dtype, (), [text.tobytes()], zipfile.ZIP_DEFLATED)

    def _add(
        self,
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        pieces: Iterable[bytes],
        compression: int,
    ) -> None:
        member = zipfile.ZipInfo(f"{name}.npy")
        member.compress_type = compression
        with self._archive.open(member, "w", force_zip64=True) as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            for piece in pieces:
                file.write(piece)


class NpzFile(OneFile):
    """One NPZ file, which appears when all is embedded."""

    writer = NpzWriter

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """The file.

        Raises:
            InputError: not an NPZ file, or one of another width than its contract says.
            ContractError: no contract in it.
        """
        try:
            with np.load(target, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as exc:
            raise InputError(
                f"{target}: not an NPZ file that can be read ({exc}); "
                "expected a file that `sa-deploy embed` wrote",
                path=target,
            ) from exc
        return [_stored(arrays, target)]


def _stored(arrays: dict[str, NDArray[Any]], path: Path) -> StoredEmbeddings:
    if CONTRACT not in arrays:
        raise ContractError(
            f"{path}: no contract in it, so its vectors cannot be compared; "
            "expected a file that `sa-deploy embed` wrote"
        )
    contract = Contract.from_json(str(arrays.pop(CONTRACT)), source=str(path))
    version = str(arrays.pop(SCHEMA, "1"))
    vectors = arrays.pop(VECTORS, np.zeros(0))
    dim = contract.output.dim
    if vectors.ndim != 2 or vectors.shape[1] != dim or vectors.dtype.kind != "f":
        raise InputError(
            f"{path}: its array {VECTORS!r} is {vectors.dtype} of shape {vectors.shape}, its "
            f"contract says {dim} numbers a row; embed again",
            path=path,
        )
    require_unit_length(vectors, path)
    columns = {
        field.name: _values(arrays[field.name], field)
        for field in TRACK_SCHEMA
        if field.name in arrays
    }
    if any(len(column) != len(vectors) for column in columns.values()):
        raise InputError(f"{path}: its arrays are of different lengths; embed again", path=path)
    table = pa.Table.from_pydict(columns)
    rows = brought_up(table, int(version) if version.isdecimal() else 1, str(path))
    return StoredEmbeddings(
        rows=rows.cast(pa.schema([TRACK_SCHEMA.field(name) for name in rows.column_names])),
        vectors=vectors.astype(np.float32, copy=False),
        contract=contract,
    )


def _column(values: pa.Array, field: pa.Field) -> NDArray[Any]:
    """A column as an array without nulls."""
    if pa.types.is_string(field.type):
        return np.array(values.fill_null("").to_pylist(), np.str_)
    nothing = -1 if pa.types.is_integer(field.type) else np.nan
    return np.asarray(values.fill_null(nothing).to_numpy(zero_copy_only=False))


def _values(array: NDArray[Any], field: pa.Field) -> pa.Array:
    """The column that :func:`_column` gave."""
    if pa.types.is_string(field.type):
        texts = [str(text) for text in array.tolist()]
        return pa.array([text or None for text in texts] if field.nullable else texts, field.type)
    nothing = array == -1 if pa.types.is_integer(field.type) else np.isnan(array)
    return pa.array(array, field.type, mask=nothing if field.nullable else None)


def _parts(column: NDArray[Any]) -> Iterable[slice]:
    return slices(len(column), max(1, _PIECE // max(1, column.dtype.itemsize)))
