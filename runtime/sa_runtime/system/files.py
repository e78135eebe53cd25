"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sa_runtime.errors import InputError, bad_value

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_OF_WRITING = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``target``; rename it on success, remove it on failure.

    The temporary name keeps the suffix, so that writers which look at it still work. The file is
    on the disk before it gets its name, so that a loss of power leaves the old one or the new one.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Unique among processes, threads and hosts that share a folder.
    token = f"{os.getpid()}-{secrets.token_hex(6)}"
    temporary = target.with_name(f".{target.stem}.{token}.partial{target.suffix}")
    try:
        with naming(target):
            yield temporary
            _to_disk(temporary)
            temporary.replace(target)
            # The name is kept by the folder; some systems and file systems do not sync folders.
            with suppress(OSError):
                _to_disk(target.parent)
    finally:
        with suppress(OSError):  # the reason above is the one to hear
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Give errors of writing the name of what is written: those on an open file have none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_WRITING:
            error.filename = str(target)
        raise


class HashedFile(io.RawIOBase):
    """A new file that is hashed while it is written.

    Attributes:
        size_bytes: written so far.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.size_bytes = 0
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.size_bytes

    def write(self, data: Buffer) -> int:
        """Append bytes."""
        count = self._file.write(data)
        self._digest.update(data)
        self.size_bytes += count
        return count

    def flush(self) -> None:
        """Hand everything to the system."""
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()
        super().close()


def sha256_of(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path, stem: str, suffix: str) -> None:
    """Remove what :func:`atomic_path` left for one target when its process was killed.

    Call it only while nobody else can write the target, as under
    :func:`sa_runtime.system.locking.owned`.

    Args:
        folder: of the target.
        stem: regular expression for the stems of the targets.
        suffix: of the targets.
    """
    name = re.compile(rf"\.(?:{stem})\.[0-9]+(?:-[0-9a-f]+)?\.partial{re.escape(suffix)}")
    for path in folder.glob(".*.partial*"):
        if name.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def refuse_inputs(
    target: Path, inputs: Iterable[str | os.PathLike[str]], *, parameter: str = "out"
) -> None:
    """Refuse to write over, or into a folder of, what is read.

    Args:
        target: file or folder to be written.
        inputs: files and folders that are read; those that do not exist are passed over.
        parameter: name of the parameter that gave the target.

    Raises:
        InputError: the target is one of them, or lies in a folder among them.
    """
    where = real(target)
    for given in map(Path, inputs):
        if given.is_dir():
            if where.is_relative_to(real(given)):
                raise bad_value(parameter, str(target), f"{given} is read; write elsewhere")
        elif given.exists() and (
            where == real(given) or (target.exists() and target.samefile(given))
        ):
            raise bad_value(parameter, str(target), "it is read; write to another file")


def refuse_twice(inputs: Iterable[Path]) -> None:
    """Refuse a file that is named twice, whose rows would count twice.

    Raises:
        InputError: which.
    """
    seen = set()
    for path in inputs:
        if real(path) in seen:
            raise InputError(f"{path}: given twice; leave one out")
        seen.add(real(path))


def real(path: Path) -> Path:
    """Where a path leads, links followed; links in a circle are left, and fail where they are used.

    ``Path.resolve`` raises RuntimeError for them in Python 3.11 and 3.12.
    """
    return Path(os.path.realpath(path))


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    # Windows syncs only what is open for writing; elsewhere a file may be read-only.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
