"""The columns beside a vector, in every output the same, and how older files get them.

Version 1 had no ``crop``, version 2 no ``quality``. A reader adds what an older file lacks as
nulls; a file of a later version than this one's is refused, since its columns may mean something
else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from sa_runtime.errors import InputError
from sa_runtime.items import Row

SCHEMA_KEY = "sa_deploy.schema"
SCHEMA_VERSION = 3
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
        pa.field("crop", pa.string()),
        pa.field("quality", pa.float32()),
    ]
)
"""The columns of :class:`Row`; ``embedding``, a list of D float32 or float16, follows them."""
ROW_NUMBER = pa.field("row", pa.int64(), nullable=False)
"""Number of a row in its run, from 0, in outputs that do not keep the order."""
TRACK_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        pa.field("crops", pa.int64()),
        pa.field("first_frame", pa.int64()),
        pa.field("last_frame", pa.int64()),
        pa.field("first_timestamp_s", pa.float64()),
        pa.field("last_timestamp_s", pa.float64()),
    ]
)
"""The columns of :class:`sa_runtime.items.TrackRow`: the row of a track's best crop and more."""


def row_table(rows: Sequence[Row], columns: pa.Schema = ROW_SCHEMA) -> pa.Table:
    """The columns of :data:`ROW_SCHEMA`, or of another schema that the rows fit.

    >>> row_table([Row("a.jpg", None, None, None, 0, 0, 64, 128, None, None)]).num_rows
    1
    """
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(values, columns, strict=True)],
        schema=columns,
    )


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table of :data:`ROW_SCHEMA`."""
    columns = [table[name].to_pylist() for name in ROW_SCHEMA.names]
    return [Row(*values) for values in zip(*columns, strict=True)]


def slices(count: int, size: int) -> Iterator[slice]:
    """Rows in groups.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def brought_up(table: pa.Table, version: int, name: str) -> pa.Table:
    """The columns of a file as this version has them.

    Args:
        table: without the vectors.
        version: of the schema it was written with.
        name: of the file, for the message.

    Raises:
        InputError: a later version's file, or one without a column that has always been there.
    """
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{name}: its columns are of version {version}, this sa-deploy reads versions up to "
            f"{SCHEMA_VERSION}; install a newer one"
        )
    for field in ROW_SCHEMA:
        if field.name in table.column_names:
            continue
        if not field.nullable:
            raise InputError(
                f"{name}: no column {field.name!r}; expected a file that `sa-deploy embed` wrote"
            )
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    own = [name for name in table.column_names if name not in ROW_SCHEMA.names]
    return table.select([*ROW_SCHEMA.names, *own])
