"""Arrow's batches made into chunks, and Parquet files of boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.detections.names import Layout, layout_of
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.rows import chunk_of
from sa_runtime.errors import DetectionError, MissingFileError, shown

_BATCH_ROWS = 2**17
_BOX = ("frame", "left", "top", "cx", "cy", "width", "height", "right", "bottom")


def chunk_of_batch(
    batch: pa.RecordBatch, layout: Layout, where: Callable[[int], str], *, first_frame: int
) -> Chunk:
    """The boxes of a batch whose columns are named by their place in the file.

    Args:
        batch: N rows.
        layout: which column is which.
        where: names the row of an index in a message.
        first_frame: the number that the first frame has.

    Raises:
        DetectionError: a number that is missing or cannot be, with its row.
    """
    columns = {}
    for name, at in layout.numbers.items():
        column = _numbers(batch.column(str(at)), name, where)
        if name in _BOX and column.null_count:
            row = column.is_null().index(pa.scalar(True)).as_py()
            raise DetectionError(f"{where(row)}: no {name}, expected a number")
        columns[name] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return chunk_of(
        columns,
        where,
        first_frame=first_frame,
        classes=_labels(batch, layout.label),
        videos=_labels(batch, layout.video),
    )


def _numbers(column: pa.Array, name: str, where: Callable[[int], str]) -> pa.Array:
    """A column as numbers; texts may have blanks around them and a sign before."""
    if not pa.types.is_string(column.type):
        return column
    plain = pc.utf8_ltrim(pc.utf8_trim(column, characters=" \t"), characters="+")
    if pc.any(pc.match_substring(plain, ",")).as_py():  # a decimal sign, where it is no separator
        plain = pc.replace_substring(plain, ",", ".")
    plain = pc.if_else(pc.equal(plain, ""), None, plain)
    try:
        return plain.cast(pa.float64())
    except pa.ArrowInvalid as exc:
        row = next(row for row, text in enumerate(plain.to_pylist()) if not _is_number(text))
        text = shown(column[row].as_py())
        raise DetectionError(f"{where(row)}: {text} as {name}, expected a number") from exc


def _is_number(text: str | None) -> bool:
    try:
        pa.scalar(text).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _labels(batch: pa.RecordBatch, at: int) -> Labels | None:
    if at < 0:
        return None
    column = batch.column(str(at))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = column.cast(pa.string()).fill_null("")
    encoded = column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Labels(codes, [(_plain(name),) for name in encoded.dictionary.to_pylist()])


def _plain(label: str) -> str:
    """A label without the fraction that a number gets in a column with gaps."""
    whole = label.removesuffix(".0")
    return whole if whole.isdigit() else label


def read_columns(path: Path, options: BoxOptions) -> Iterator[Chunk]:
    """Read a Parquet file.

    Args:
        path: the file.
        options: how it is read.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that is not Parquet, columns that do not say what a box is, or a row
            that is not a detection, named.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield from _chunks(path, file, options)
    except FileNotFoundError as exc:
        raise MissingFileError(f"{path}: no such file", path=path) from exc
    except (OSError, pa.ArrowException) as exc:
        raise DetectionError(
            f"{path}: not a Parquet file that can be read ({shown(str(exc))})", path=path
        ) from exc


def _chunks(path: Path, file: Any, options: BoxOptions) -> Iterator[Chunk]:
    names: list[str] = file.schema_arrow.names
    layout = layout_of(names, options.columns)
    if isinstance(layout, str):
        raise DetectionError(
            f"{path}: columns {shown(', '.join(names))}, without {layout}; say which is which with "
            "`columns`"
        )
    for at in layout.numbers.values():
        kind = file.schema_arrow.types[at]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise DetectionError(f"{path}: column {names[at]!r} holds {kind}, expected numbers")
    used = sorted({at for at in (*layout.numbers.values(), layout.label, layout.video) if at >= 0})
    before = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[names[at] for at in used]):
        arrays = [batch.column(names[at]) for at in used]
        placed = pa.RecordBatch.from_arrays(arrays, [str(at) for at in used])
        yield chunk_of_batch(
            placed,
            layout,
            _rows_of(path, before + 1),
            first_frame=options.first_frame,
        )
        before += len(batch)


def _rows_of(path: Path, start: int) -> Callable[[int], str]:
    return lambda index: f"{path}: row {start + index}"
