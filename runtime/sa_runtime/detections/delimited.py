"""CSV and TSV files whose first line names their columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from sa_runtime.detections.collect import Chunk
from sa_runtime.detections.columnar import chunk_of_batch
from sa_runtime.detections.mot import unfit_names
from sa_runtime.detections.names import Layout, layout_of, looks_like_names
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import DetectionError, MissingFileError, shown

_LONGEST_HEAD = 2**20
_BLOCK_BYTES = 2**24
_ROW = re.compile(r"Row #(\d+): (.*)", re.DOTALL)


class Head(NamedTuple):
    """The first line of a file, where it names columns.

    Attributes:
        number: of the line, from 1.
        text: the line.
        separator: between the names.
        names: of the columns.
    """

    number: int
    text: str
    separator: str
    names: list[str]


def head_of(text: str) -> Head | None:
    """The names in the first line of a text that is not blank; ``None`` where there are none.

    >>> head_of("frame;x1;y1;x2;y2").names[1]
    'x1'
    >>> head_of("1,2,3,4,5,6")
    """
    lines = text.removeprefix("\ufeff").splitlines()
    number, line = next(((at, one) for at, one in enumerate(lines, 1) if one.strip()), (0, ""))
    plain = line.strip(" \r\n#")
    separator = next((sign for sign in ";,\t" if sign in plain), None)
    if separator is None:
        return None
    names = [name.strip(" '") for name in next(csv.reader([plain], delimiter=separator))]
    if not looks_like_names(names):
        return None
    return Head(number, line, separator, names)


def read_delimited(path: Path, options: BoxOptions) -> Iterator[Chunk]:
    """Read a CSV or TSV file.

    Args:
        path: the file.
        options: how it is read.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that cannot be read, names that do not say what a box is, or a row
            that is not a detection, named.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = head_of(file.read(_LONGEST_HEAD))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else DetectionError
        raise kind(f"{path}: cannot be read ({reason}); expected a CSV file", path=path) from exc
    if head is None:
        raise DetectionError(
            f"{path}: its first line names no columns; expected names as "
            "frame,id,x1,y1,x2,y2,conf, separated by commas, semicolons or tabs"
        )
    layout = layout_of(head.names, options.columns)
    if isinstance(layout, str):
        raise DetectionError(unfit_names(f"{path}:{head.number}", head.text, layout))
    before = head.number
    try:
        with _opened(path, head, layout) as reader:
            for batch in reader:
                yield chunk_of_batch(
                    batch,
                    layout,
                    _lines_of(path, before + 1),
                    first_frame=options.first_frame,
                )
                before += len(batch)
    except pa.ArrowInvalid as exc:
        raise _named(path, exc) from exc


def _opened(path: Path, head: Head, layout: Layout) -> pa_csv.CSVStreamingReader:
    # Columns go by their place: names may stand twice.
    names = [str(index) for index in range(len(head.names))]
    used = [at for at in (*layout.numbers.values(), layout.label, layout.video) if at >= 0]
    return pa_csv.open_csv(
        path,
        # One thread: else messages do not say which row they are about.
        read_options=pa_csv.ReadOptions(
            use_threads=False,
            block_size=_BLOCK_BYTES,
            column_names=names,
            skip_rows=head.number,
        ),
        parse_options=pa_csv.ParseOptions(delimiter=head.separator),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[str(at) for at in used],
            strings_can_be_null=False,
        ),
    )


def _named(path: Path, error: pa.ArrowInvalid) -> DetectionError:
    found = _ROW.search(str(error))
    if found is None:
        return DetectionError(f"{path}: cannot be read as CSV ({shown(str(error))})")
    return DetectionError(f"{path}:{found[1]}: {shown(found[2])}")


def _lines_of(path: Path, start: int) -> Callable[[int], str]:
    return lambda index: f"{path}:{start + index}"
