"""What a gallery keeps of every vector beside its numbers, and how rows are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sa_runtime.errors import InputError, bad_value
from sa_runtime.outputs.columns import ROW_SCHEMA as STORED

_NAME = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")
_REPEATED = ("source", "camera")
ROW_SCHEMA = pa.schema(
    [
        *(
            pa.field(field.name, _NAME if field.name in _REPEATED else field.type, field.nullable)
            for field in STORED
        ),
        pa.field("person", _NAME),
        pa.field("time", _TIME),
        pa.field("added", _TIME, nullable=False),
    ]
)
"""The columns of stored embeddings; then ``person``, a name that a user gave; ``time``, when the
picture was taken, where that is known; ``added``, when the row came into the gallery."""
NAMES = ("source", "camera", "person")
_NAMED = 8
"""So many names are listed in a message."""
_LAST_YEAR = 9000
"""Beyond it the times of later rows may leave the calendar, which ends with 9999."""

When = datetime | float
"""A time of day, or seconds from the beginning of a source."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLabels:
    """What is said of rows as they are added.

    It never changes, so that threads may share it.

    Attributes:
        camera: of all rows; the rows' own where it is None.
        person: who is on all of them, or nobody that is known.
        start: when the first frame of each source was taken; with it rows get their ``time``.
    """

    camera: str | None = None
    person: str | None = None
    start: datetime | None = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.start is not None and self.start.tzinfo is None:
            raise bad_value("start", self.start, "expected a time with its zone")
        if self.start is not None and self.start.year > _LAST_YEAR:
            raise bad_value(
                "start", str(self.start), f"expected a time up to the year {_LAST_YEAR}"
            )
        for field in ("camera", "person"):
            if getattr(self, field) == "":
                raise bad_value(field, "", "expected a name")


def gallery_rows(rows: pa.Table, labels: RowLabels, added: datetime) -> pa.Table:
    """Rows of stored embeddings as a gallery keeps them.

    Args:
        rows: the columns of :data:`sa_runtime.outputs.columns.ROW_SCHEMA`.
        labels: what is said of all of them.
        added: now.

    Returns:
        Columns of :data:`ROW_SCHEMA`, each of one chunk.
    """
    count = len(rows)
    columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
    if labels.camera is not None:
        columns["camera"] = pa.array([labels.camera]).take(pa.array(np.zeros(count, np.int64)))
    columns["person"] = _repeated(labels.person, pa.string(), count)
    if labels.start is None:
        columns["time"] = pa.nulls(count, _TIME)
    else:
        after = pc.multiply(columns["timestamp_s"], 1e6).cast(pa.float64())
        micros = pc.add(pc.round(pc.fill_null(after, 0.0)), labels.start.timestamp() * 1e6)
        columns["time"] = micros.cast(pa.int64(), safe=False).cast(_TIME)
    columns["added"] = _repeated(added, _TIME, count)
    return in_schema(pa.table(columns))


def every_column(table: pa.Table) -> pa.Table:
    """The rows of an older gallery, with nulls in the columns that it did not have."""
    for field in ROW_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(ROW_SCHEMA.names)


def in_schema(table: pa.Table) -> pa.Table:
    """A table with the columns of :data:`ROW_SCHEMA`, each of one chunk and one dictionary."""
    arrays = []
    for field in ROW_SCHEMA:
        column = table[field.name]
        if pa.types.is_dictionary(field.type):
            # By way of text, so that names nobody bears any more leave the dictionary.
            if pa.types.is_dictionary(column.type):
                column = column.cast(pa.string())
            column = column.combine_chunks()
            if isinstance(column, pa.ChunkedArray):  # no rows, no chunk
                column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], "str")
            column = column.dictionary_encode()
        arrays.append(column.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA).combine_chunks()


def _repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    return pa.array([value], kind).take(pa.array(np.zeros(count, np.int64)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """Which rows are meant: those for which everything that is given holds.

    It never changes, so that threads may share it.

    Attributes:
        source: of one of these sources.
        camera: under one of these cameras.
        person: of one of these people, as they were named.
        track: of this track.
        start: not before; a time of day compares with ``time``, seconds with ``timestamp_s``. A
            row that does not know its time is not meant.
        end: before.
    """

    source: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()
    person: tuple[str, ...] = ()
    track: int | None = None
    start: When | None = None
    end: When | None = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.track is not None and not -(2**63) <= self.track < 2**63:
            raise bad_value("track", self.track, "expected a whole number of 64 bits")
        for field in ("start", "end"):
            value = getattr(self, field)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise bad_value(field, value, "expected a time with its zone")
        if None not in (self.start, self.end):
            if isinstance(self.start, datetime) != isinstance(self.end, datetime):
                raise InputError(
                    f"start={self.start}, end={self.end}: expected two times of day, or seconds "
                    "twice"
                )
            if self.start >= self.end:  # type: ignore[operator]  # of one kind
                raise bad_value("start", self.start, f"expected a time before `end`, {self.end}")

    @property
    def everything(self) -> bool:
        """Whether nothing is said."""
        return self == Where()

    def of(self, rows: pa.Table) -> NDArray[np.bool_]:
        """(N,) whether each row is meant."""
        meant = np.ones(len(rows), np.bool_)
        for field in NAMES:
            if names := getattr(self, field):
                meant &= _is_one_of(rows[field], names)
        if self.track is not None:
            meant &= _numbers(pc.equal(rows["track_id"], self.track))
        for limit, compare in ((self.start, pc.greater_equal), (self.end, pc.less)):
            if limit is not None:
                column = rows["time" if isinstance(limit, datetime) else "timestamp_s"]
                value = pa.scalar(limit, column.type)
                meant &= _numbers(compare(column, value))
        return meant

    def check_names(self, tables: Sequence[pa.Table]) -> None:
        """Refuse names that no row bears, as a misspelt one.

        Raises:
            InputError: which, with those that there are.
        """
        for field in NAMES:
            if wanted := getattr(self, field):
                known = names_of(tables, field)
                for name in wanted:
                    if name not in known:
                        raise InputError(
                            f"{field}={name!r}: no row of the gallery has it; {_listed(known)}",
                            parameter=field,
                            value=name,
                        )


def names_of(tables: Sequence[pa.Table], field: str) -> list[str]:
    """The names in a column, sorted."""
    found = {name for table in tables for name in pc.unique(table[field]).to_pylist()}
    return sorted(found - {None})


def counts_of(tables: Sequence[pa.Table], field: str) -> dict[str, int]:
    """Rows of each name in a column, sorted by name."""
    counts: dict[str, int] = {}
    for table in tables:
        for entry in table[field].value_counts().to_pylist():
            if entry["values"] is not None:
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return dict(sorted(counts.items()))


def tracks_of(tables: Sequence[pa.Table], source: str | None = None) -> list[int]:
    """The ids of tracks, ascending; of one source, or of all."""
    where = Where(source=() if source is None else (source,))
    found: set[int | None] = set()
    for table in tables:
        meant = table["track_id"].filter(pa.array(where.of(table)))
        found |= set(pc.unique(meant).to_pylist())
    return sorted(number for number in found if number is not None)


def track_numbers(rows: pa.Table) -> NDArray[np.int64]:
    """(N,) a number for each row: one for all rows of a track, rows without track by themselves."""
    alone = pc.is_null(rows["track_id"]).to_numpy()
    source = rows["source"].cast(pa.string()).combine_chunks().dictionary_encode().indices
    track = np.unique(pc.fill_null(rows["track_id"], 0).to_numpy(), return_inverse=True)[1]
    numbers = np.where(alone, -1 - np.arange(len(rows)), source.to_numpy() * len(rows) + track)
    return np.unique(numbers, return_inverse=True)[1]


def expired(rows: pa.Table, before: datetime) -> NDArray[np.bool_]:
    """(N,) whether each row is older: by when it was taken, or else by when it was added."""
    age = pc.coalesce(rows["time"], rows["added"])
    return _numbers(pc.less(age, pa.scalar(before, _TIME)))


def oldest(rows: pa.Table) -> float | None:
    """When the oldest row was taken or added, in seconds since 1970; ``None`` without rows."""
    first = pc.min(pc.coalesce(rows["time"], rows["added"])).as_py()
    return None if first is None else first.timestamp()


def duration(text: str) -> timedelta:
    """A span of time such as ``30d``, ``12h``, ``90min`` or ``2w``.

    Raises:
        InputError: another text.

    >>> duration("30d").days
    30
    """
    units = {"min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
    for unit, seconds in units.items():
        number = text.removesuffix(unit)
        if number != text and number.isascii() and number.isdigit() and 0 < int(number) < 10**6:
            return timedelta(seconds=int(number) * seconds)
    raise bad_value("keep", text, "expected a number and a unit, such as 30d, 12h, 90min or 2w")


def time_of(text: str, parameter: str) -> When:
    """A time of day, or seconds from the beginning of a source.

    Raises:
        InputError: another text.

    >>> time_of("90", "start"), time_of("2026-05-01T12:00Z", "end").hour
    (90.0, 12)
    """
    try:
        seconds = float(text)
    except ValueError:
        return time_of_day(text, parameter)
    if not np.isfinite(seconds):
        raise bad_value(parameter, text, "expected a number of seconds, or a time of day")
    return seconds


def time_of_day(text: str, parameter: str) -> datetime:
    """A time in ISO 8601; without a zone it is one of this machine's.

    Raises:
        InputError: another text.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise bad_value(parameter, text, "expected a time such as 2026-05-01T12:00") from exc


def _is_one_of(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) by number in the dictionary, so that no name is compared twice."""
    masks = [np.zeros(0, np.bool_)]
    for chunk in column.chunks:
        wanted = [name in names for name in chunk.dictionary.to_pylist()]
        # Behind the names stands what no row without a name is.
        codes = chunk.indices.fill_null(len(wanted)).to_numpy(zero_copy_only=False)
        masks.append(np.array([*wanted, False])[codes])
    return np.concatenate(masks)


def _numbers(mask: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.fill_null(mask, False).to_numpy()
    return found


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none has any"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"there are {', '.join(names[:_NAMED])}{more}"
