"""Lists of sources: patterns, files of names, and names on standard input."""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from sa_runtime.errors import InputError, MissingFileError

T = TypeVar("T")
_log = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".lst", ".list")
STANDARD_INPUT = "-"


def listed(given: Sequence[str | os.PathLike[str] | T]) -> list[str | T]:
    """What patterns and lists stand for; everything else stands for itself.

    Args:
        given: paths and addresses; ``-`` for the lines of standard input, the name of a text file
            for its lines, each once, a pattern such as ``day/**/*.mp4`` for what it fits, sorted.

    Raises:
        InputError: a pattern that nothing fits, or a list without names.
    """
    found: list[str | T] = []
    for one in given:
        if isinstance(one, str | os.PathLike):
            found += _named(os.fspath(one))
        else:
            found.append(one)
    return found


def is_list(name: str) -> bool:
    """Whether a name is that of a list: standard input, or a text file that is there."""
    path = Path(name)
    return name == STANDARD_INPUT or (path.suffix.lower() in LIST_SUFFIXES and path.is_file())


def _named(name: str) -> Iterable[str]:
    if name == STANDARD_INPUT:
        return _lines(sys.stdin, "standard input")
    path = Path(name)
    if is_list(name):
        try:
            with path.open(encoding="utf-8-sig") as file:
                return _lines(file, name)
        except UnicodeDecodeError as exc:
            raise InputError(f"{name}: not UTF-8 text; expected a source a line") from exc
    # A name that is there is no pattern, whatever it holds; nor is an address.
    if glob.has_magic(name) and not os.path.lexists(name) and "://" not in name:
        fits = sorted(glob.glob(name, recursive=True))
        if not fits:
            raise MissingFileError(f"{name}: nothing fits the pattern", path=name)
        return fits
    return [name]


def _lines(file: Iterable[str], name: str) -> list[str]:
    lines = [line.strip("\r\n\ufeff") for line in file if line.strip()]
    found = list(dict.fromkeys(lines))
    if not found:
        raise InputError(f"{name}: names no source; expected one a line")
    if again := len(lines) - len(found):
        _log.warning("%s: %d lines name a source again; each is embedded once", name, again)
    return found
