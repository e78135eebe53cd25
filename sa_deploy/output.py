"""How commands speak: results on stdout (tables, or JSON with ``--json``), the rest on stderr."""

from __future__ import annotations

import errno
import json
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sa_deploy import logs
from sa_deploy.progress import progress as progress

_log = logging.getLogger("sa_deploy")

_WIDEST_FIGURE = 16
"""Characters; what is longer is text."""


class _Output(Console):
    """Standard output; a reader that went away is an error as any other."""

    def on_broken_pipe(self) -> None:
        """Called by rich, which would end the process without a word."""
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "standard output")


def note(text: str) -> None:
    """One line for people, on stderr; none with ``-q``."""
    logs.current()
    _log.info(text)


def command_line(*words: object) -> str:
    """A command of this project to be pasted into a shell, whatever blanks its paths have.

    >>> command_line("embed", "my model.onnx", "IMAGES")
    "sa-deploy embed 'my model.onnx' IMAGES"
    """
    return shlex.join(["sa-deploy", *map(str, words)])


def print_error(text: str) -> None:
    """An error as one line on stderr."""
    logs.current()
    _log.error(" ".join(text.split()))


def print_json(result: Mapping[str, Any]) -> None:
    """The result as one JSON object on stdout."""
    typer.echo(json.dumps(result, indent=2, sort_keys=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    figures: bool = True,
) -> None:
    """A table on stdout; the first column is text, the others figures, or text as well.

    Text wraps between words and figures never do, so that a table of few columns fits a terminal
    of 80. Only what has no space in it, such as a path, is broken where it must be.
    """
    # A cell such as 'sa-deploy[gpu]' is text, not markup.
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(columns):
        right = figures and index > 0
        widest = max(map(len, [*column.split(), *(row[index] for row in cells)]))
        table.add_column(
            column,
            justify="right" if right else "left",
            overflow="fold",
            min_width=widest if right and widest <= _WIDEST_FIGURE else None,
        )
    for row in cells:
        table.add_row(*row)
    console = _Output(highlight=False)
    console.print(title, style="bold", markup=False, soft_wrap=True)
    console.print(table)
