"""How commands speak: results on stdout (tables, or JSON with ``--json``), the rest on stderr."""

from __future__ import annotations

import errno
import json
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from sa_deploy import logs
from sa_deploy.progress import progress as progress
from sa_deploy.tables import parts_of_table

_log = logging.getLogger("sa_deploy")


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

    Text wraps between words and figures never do. What has no space in it, such as a path, is
    broken where a table of text must; in one of figures it stands whole above its row instead.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    console = _Output(highlight=False)
    console.print(Text(title, style="bold"), soft_wrap=True)
    for part in parts_of_table(columns, cells, figures=figures, width=console.width):
        # A name is one line for whoever pastes it, whatever the terminal makes of it.
        console.print(part, soft_wrap=isinstance(part, Text), crop=False)
