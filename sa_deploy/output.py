"""How commands speak: results on stdout (tables, or JSON with ``--json``), the rest on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def stderr() -> Console:
    """The console for progress, logs and notes."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """One line for people, on stderr."""
    stderr().print(text, markup=False)


def print_error(error: Exception) -> None:
    """A known error as one line on stderr."""
    line = " ".join(str(error).split())
    stderr().print(f"error: {line}", style="red", markup=False)


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
    """A table on stdout; the first column is text, the others figures, or text as well."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        right = figures and index > 0
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        # A cell such as 'sa-deploy[gpu]' is text, not markup.
        table.add_row(*(escape(str(cell)) for cell in row))
    Console(highlight=False).print(table)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr.

    Yields ``advance(count=1, *, completed=None, total=None, description=None)``.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr()) as bar:
        task = bar.add_task(description, total=total)

        def advance(
            count: int = 1,
            *,
            completed: int | None = None,
            total: int | None = None,
            description: str | None = None,
        ) -> None:
            step = None if completed is not None else count
            bar.update(
                task, advance=step, completed=completed, total=total, description=description
            )

        yield advance
