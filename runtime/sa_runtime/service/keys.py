"""API keys: a file of their hashes, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

from sa_runtime.errors import InputError, MissingFileError

_log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How often the file is looked at."""
_LINE = re.compile(r"([\w.@-]{1,64})\s+([0-9a-fA-F]{64})(\s+admin)?")


class Holder(NamedTuple):
    """Whose a key is; an admin may swap models."""

    name: str
    admin: bool


class Keys:
    """The keys that a service takes.

    A line of the file is ``NAME HASH``, or ``NAME HASH admin``: whose it is, the SHA-256 of the key
    in hexadecimal, and whether it may swap models. Several lines may have one name, so that an old
    key and a new one hold side by side while clients change over. Empty lines and those that begin
    with ``#`` are passed over. A file that becomes unreadable changes nothing: the last keys that
    could be read hold. One that others than its owner may write is not taken: they could let
    anybody in.

    Keys are random and long (``openssl rand -hex 32``), so that one round of SHA-256 is enough:
    there is nothing to guess.

    Args:
        path: the file.

    Raises:
        InputError: it is not there, holds no key, or a line that is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._holders = read_keys(path)
        self._looked = time.monotonic()

    def holder(self, key: str) -> Holder | None:
        """Whose a key is, ``None`` where it is nobody's."""
        self._look()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known, holder in self._holders.items():
            if hmac.compare_digest(known, digest):
                found = holder
        return found

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._holders = read_keys(self._path)
        except InputError as exc:
            _log.error("the keys stay as they were: %s", exc)
        else:
            _log.info("%s: read again, %d keys", self._path, len(self._holders))


def read_keys(path: Path) -> dict[str, Holder]:
    """The holders by the hash of their key.

    Raises:
        InputError: no such file, no key in it, a line that is none, the same key twice, or others
            may write it.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else InputError
        raise kind(
            f"{path}: cannot be read; expected lines of NAME and the SHA-256 of a key", path=path
        ) from exc
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"{path}: others may write it, and let anybody in; take that from them: chmod go-w "
            f"{path}",
            path=path,
        )
    found: dict[str, Holder] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # What the line holds is not said: it may be a key.
            raise InputError(
                f"{path}: line {number} is not NAME and 64 hexadecimal digits, with `admin` behind "
                "them where the key may swap models",
                path=path,
            )
        digest = match[2].lower()
        if digest in found:
            raise InputError(f"{path}: line {number} has the key of a line before it", path=path)
        found[digest] = Holder(match[1], match[3] is not None)
    if not found:
        raise InputError(f"{path}: no key in it; nobody could ask", path=path)
    return found


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the file, with who may write it, and with another one in its place."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode)
