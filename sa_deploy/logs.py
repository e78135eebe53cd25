"""What a command says besides its result: notes and log records, all of them on stderr.

The packages below log through loggers of their modules' names and set nothing up. Here is the one
handler: lines for people, or one JSON object a line with ``--log-json``.

=========  ===============================  ==============================
option     ``sa_deploy`` (notes)            ``sa_runtime`` and the others
=========  ===============================  ==============================
(none)     all notes                        warnings
``-v``     all notes                        what was measured, read, skipped
``-vv``    everything                       everything
``-q``     errors                           errors
=========  ===============================  ==============================
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

PACKAGES = ("sa_deploy", "sa_runtime", "sa_training", "sa_export", "py.warnings")
"""Loggers that are listened to, with all below them."""

_PANEL = "Messages"
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        rich_help_panel=_PANEL,
        help="Say what was measured, read from a cache, skipped or planned; -vv says more.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        rich_help_panel=_PANEL,
        help="Print the result and errors only: no notes, no progress.",
    ),
]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        rich_help_panel=_PANEL,
        help="Write notes, progress and errors as one JSON object a line on stderr.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How much is said, and how.

    Attributes:
        verbose: how often ``-v`` was given.
        quiet: results and errors only.
        as_json: one JSON object a line.
    """

    verbose: int = 0
    quiet: bool = False
    as_json: bool = False


_current: LogOptions | None = None


def current() -> LogOptions:
    """The options in force; the defaults, set up, where no command line was read."""
    return configure(LogOptions()) if _current is None else _current


def configure(options: LogOptions) -> LogOptions:
    """Set level and handler of the packages' loggers; a second call replaces the first."""
    global _current
    if options.quiet and options.verbose:
        raise typer.BadParameter("contradicts -v/--verbose; give one of them", param_hint="-q")
    _current = options
    notes, others = (logging.INFO, logging.WARNING)
    if options.quiet:
        notes = others = logging.ERROR
    elif options.verbose:
        notes = others = logging.INFO if options.verbose == 1 else logging.DEBUG
    logging.captureWarnings(options.as_json)
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(notes if name == "sa_deploy" else others)
        for handler in [one for one in logger.handlers if isinstance(one, _Handler)]:
            logger.removeHandler(handler)
        logger.addHandler(_Handler(options))
    return options


def stderr() -> Console:
    """The console for progress, logs and notes."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def with_log_options(function: Callable[..., None]) -> Callable[..., None]:
    """A command that takes ``-v``, ``-q`` and ``--log-json`` too; they add to those before it."""

    @functools.wraps(function)
    def command(*, verbose: int, quiet: bool, log_json: bool, **options: Any) -> None:
        before = current()
        configure(
            LogOptions(
                verbose=before.verbose + verbose,
                quiet=before.quiet or quiet,
                as_json=before.as_json or log_json,
            )
        )
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    extra = {"verbose": (Verbose, 0), "quiet": (Quiet, False), "log_json": (LogJson, False)}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in extra.items()
    ]
    own = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()
    ]
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ |= {name: kind for name, (kind, _) in extra.items()}
    return command


class _Handler(logging.Handler):
    """Writes records to whatever stderr is at that moment."""

    def __init__(self, options: LogOptions) -> None:
        super().__init__()
        self._as_json = options.as_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._as_json:
                sys.stderr.write(as_json(record) + "\n")
                sys.stderr.flush()
            else:
                _print(record)
        except Exception:
            self.handleError(record)


def _print(record: logging.LogRecord) -> None:
    text = record.getMessage()
    if record.levelno >= logging.ERROR:
        stderr().print(f"error: {text}", style="red", markup=False)
    elif record.levelno >= logging.WARNING:
        stderr().print(f"warning: {text}", markup=False)
    elif record.name == "sa_deploy":
        stderr().print(text, markup=False)
    else:
        stderr().print(f"{record.name}: {text}", markup=False)


def as_json(record: logging.LogRecord) -> str:
    """One line: time, level, logger, message, and the fields given as ``extra``.

    >>> record = logging.makeLogRecord({"msg": "5 rows", "name": "sa_deploy", "rows": 5})
    >>> json.loads(as_json(record))["rows"]
    5
    """
    # Made anew, since libraries add fields of their own to every record (Ray does).
    own = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "taskName"}
    fields = {key: value for key, value in record.__dict__.items() if key not in own}
    when = datetime.fromtimestamp(record.created, UTC)
    line = {
        "time": when.isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    return json.dumps({**line, **{k: v for k, v in fields.items() if k not in line}}, default=str)
