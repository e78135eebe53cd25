"""How far long work is: a bar on a terminal, a line now and then without one; always on stderr."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sa_deploy import logs

INTERVAL_VARIABLE = "SA_DEPLOY_PROGRESS_SECONDS"
"""Seconds between two lines where stderr is no terminal; :data:`INTERVAL_S` without it."""
INTERVAL_S = 30.0

_log = logging.getLogger("sa_deploy")


@contextmanager
def progress(
    description: str, total: int | None, *, unit: str = ""
) -> Iterator[Callable[..., None]]:
    """Progress of something that is worked on.

    Args:
        description: the work, such as ``train sa``.
        total: how many there are, or ``None`` while that is not known.
        unit: what is counted, such as ``step``; for the lines.

    Yields:
        ``advance(count=1, *, completed=None, total=None, description=None)``.
    """
    options = logs.current()
    if options.quiet:
        yield lambda *_, **__: None
    elif sys.stderr.isatty() and not options.as_json:
        with _bar(description, total) as advance:
            yield advance
    else:
        lines = ProgressLines(description, total, unit)
        with lines.every(float(os.environ.get(INTERVAL_VARIABLE, INTERVAL_S))):
            yield lines.advance


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=logs.stderr()) as bar:
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


class ProgressLines:
    """Says now and then how far the work is, as a note."""

    def __init__(
        self,
        work: str,
        total: int | None,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._total, self._unit, self._clock = work, total, unit, clock
        self._detail = ""
        self._done = 0
        self._began = clock()
        self._first: tuple[float, int] | None = None

    def advance(
        self,
        count: int = 1,
        *,
        completed: int | None = None,
        total: int | None = None,
        description: str | None = None,
    ) -> None:
        """Remember how far it is."""
        before = self._done
        self._done = before + count if completed is None else completed
        if self._done < before:
            self._first = None  # other work begins
        self._total = self._total if total is None else total
        self._detail = self._detail if description is None else description
        if self._first is None:
            # What a resumed run has behind it took no time of this one.
            self._first = self._clock(), self._done

    @contextmanager
    def every(self, seconds: float) -> Iterator[None]:
        """A line after every so many seconds, from a thread: the work may be a single long step."""
        over = threading.Event()

        def speak() -> None:
            while not over.wait(seconds):
                self.say()

        thread = threading.Thread(target=speak, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def say(self) -> None:
        """Write the line."""
        fields = {
            "done": self._done,
            "total": self._total,
            "seconds": round(self._clock() - self._began, 1),
            "seconds_left": self._seconds_left(),
        }
        _log.info(self.line(), extra=fields)

    def line(self) -> str:
        """How far the work is.

        >>> seconds = iter([0.0, 1.0, 31.0, 31.0])
        >>> lines = ProgressLines("train sa", 2400, "step", clock=lambda: next(seconds))
        >>> lines.advance(completed=100), lines.advance(completed=400)
        (None, None)
        >>> lines.line()
        'train sa: step 400 of 2400, 16 %, 3 min left'
        """
        unit = f"{self._unit} " if self._unit else ""
        left = self._seconds_left()
        if not self._total:
            counted = f"{unit}{self._done}, " if self._done else ""
            text = f"{self._work}: {counted}{duration(self._clock() - self._began)} so far"
        else:
            share = f"{100 * self._done // self._total} %"
            text = f"{self._work}: {unit}{self._done} of {self._total}, {share}"
            text += "" if left is None else f", {duration(left)} left"
        return f"{text} ({self._detail})" if self._detail not in ("", self._work) else text

    def _seconds_left(self) -> float | None:
        if self._first is None or not self._total or self._done <= self._first[1]:
            return None
        took = self._clock() - self._first[0]
        return round(took / (self._done - self._first[1]) * (self._total - self._done), 1)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(42.4), duration(700), duration(7600)
    ('42 s', '12 min', '2 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
