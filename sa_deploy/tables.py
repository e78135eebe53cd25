"""Tables of a given width that lose nothing, however long a name is.

Where the columns do not fit side by side, those of the longest names leave the table: what they say
stands on a line above the rows that it belongs to, whole, so that it can be pasted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_WIDEST_FIGURE = 16
"""Cells of a terminal; what is longer is text."""
_GAP = 2
_SHORT = 12
"""A column that needs no more stays in the table."""

Rows = Sequence[Sequence[str]]


def parts_of_table(
    columns: Sequence[str], rows: Rows, *, figures: bool, width: int
) -> Iterator[Table | Text]:
    """What to print, from the top down: tables of equal columns, and lines between their rows.

    Args:
        columns: their names.
        rows: a text for each of them.
        figures: whether the columns behind the first hold figures, which stand at the right.
        width: of the terminal.
    """
    needed = [_needed(column, index, rows, figures) for index, column in enumerate(columns)]
    fits = _side_by_side(needed) <= width
    if fits or not figures or len(columns) < 3:
        right = [figures and index > 0 for index in range(len(columns))]
        least = [
            need if fits or (is_right and need <= _WIDEST_FIGURE) else 0
            for need, is_right in zip(needed, right, strict=True)
        ]
        yield _table(columns, rows, right, least)
    else:
        yield from _with_lines(columns, rows, needed, width)


def _with_lines(
    columns: Sequence[str], rows: Rows, needed: list[int], width: int
) -> Iterator[Table | Text]:
    above = _above(needed, width)
    inside = [index for index in range(len(columns)) if index not in above or index == 0]
    widths = [needed[index] for index in inside]
    if 0 in above:
        # The first column keeps its place: short names still stand in it.
        widths[0] = max(_SHORT, width - _side_by_side([0, *widths[1:]]))
    right = [index > 0 for index in inside]
    yield _table([columns[index] for index in inside], [], right, widths, exact=True)
    said: list[str] = []
    for row in rows:
        lines = [f"{columns[index]} {row[index]}" for index in above if index and row[index] != "-"]
        yield from map(Text, lines if lines != said else ())
        said = lines
        cells = [row[index] for index in inside]
        if 0 in above and cell_len(row[0]) > widths[0]:
            yield Text(row[0])
            cells[0] = ""
        yield _table(cells, [cells], right, widths, exact=True, header=False)


def _above(needed: Sequence[int], width: int) -> list[int]:
    """Columns that leave the table, the widest first, until the others fit."""
    left, above = dict(enumerate(needed)), []
    while _side_by_side(left.values()) > width and max(left.values()) > _SHORT:
        widest = max(left, key=lambda index: left[index])
        above.append(widest)
        del left[widest]
        if widest == 0:
            left[widest] = _SHORT
    return sorted(above)


def _needed(column: str, index: int, rows: Rows, figures: bool) -> int:
    """Width in which no word is broken, and no figure either."""
    words = [word for text in (column, *(row[index] for row in rows)) for word in text.split()]
    whole = [row[index] for row in rows if figures and index]
    wide = max(map(cell_len, words), default=0)
    return max(wide, *(size for size in map(cell_len, whole) if size <= _WIDEST_FIGURE), 0)


def _side_by_side(widths: Iterable[int]) -> int:
    every = list(widths)
    return sum(every) + _GAP * (len(every) - 1)


def _table(
    columns: Sequence[str],
    rows: Rows,
    right: Sequence[bool],
    least: Sequence[int],
    *,
    exact: bool = False,
    header: bool = True,
) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        show_header=header,
        width=_side_by_side(least) if exact else None,
    )
    for column, at_right, width in zip(columns, right, least, strict=True):
        justify: Literal["left", "right"] = "right" if at_right else "left"
        table.add_column(Text(column), justify=justify, overflow="fold", min_width=width or None)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
