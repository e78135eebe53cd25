"""Protocol buffers read field by field, without the package that knows their messages."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_FIXED = {1: 8, 5: 4}


class Field(NamedTuple):
    """A field: its number, and where its value lies."""

    number: int
    start: int
    end: int


@contextmanager
def opened(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file; what is not read is not loaded.

    Raises:
        EOFError: it is empty.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as exc:
            raise EOFError("it is empty") from exc
        with data:
            yield data


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of the message between two positions.

    Raises:
        EOFError: it ends within a field, or is no protocol buffer.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69]), 0, 7))
    [Field(number=1, start=1, end=3), Field(number=2, start=5, end=7)]
    """
    while start < end:
        tag, start = varint(data, start, end)
        wire = tag & 7
        if wire == 0:
            _, stop = varint(data, start, end)
        elif wire == 2:
            size, start = varint(data, start, end)
            stop = start + size
        elif wire in _FIXED:
            stop = start + _FIXED[wire]
        else:
            raise EOFError("not a protocol buffer")
        if stop > end:
            raise EOFError("it ends too early")
        yield Field(tag >> 3, start, stop)
        start = stop


def varint(data: bytes | mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """A number of variable length and the position behind it.

    Raises:
        EOFError: it does not end before ``end``, or is longer than 64 bits.
    """
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
        shift += 7
    raise EOFError("it ends too early")
