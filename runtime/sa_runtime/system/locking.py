"""One process at a time, also across processes that die: waiting for a turn, or refusing one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sa_runtime.errors import InputError
from sa_runtime.system.files import atomic_path, remove_leftovers

IN_FOLDER = ".lock"
"""The lock of a folder that is being filled, inside it."""


@contextmanager
def locked(target: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of ``target``, a hidden file beside it; the system frees it if we die.

    Args:
        target: what is guarded; it need not exist.
        on_wait: called once where another process holds the lock.

    >>> import tempfile
    >>> with locked(Path(tempfile.mkdtemp()) / "a.engine"):
    ...     pass
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def owned(target: Path, *, folder: bool = False) -> Iterator[None]:
    """Be the one writer of a file or folder, or refuse.

    The system frees the lock of a process that dies, on network file systems too, so that the next
    one takes it over. It is gone when the block ends.

    Args:
        target: what is written; it need not exist.
        folder: the target is a folder, made where it is missing.

    Raises:
        InputError: another process or thread writes it, named with its host and since when; or the
            lock cannot be taken here.

    >>> import tempfile
    >>> with owned(Path(tempfile.mkdtemp()) / "a.parquet"):
    ...     pass
    """
    lock = target / IN_FOLDER if folder else target.with_name(f".{target.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(lock)
    except BlockingIOError as exc:
        raise InputError(
            f"{target}: is being written by {_owner(lock)}; wait until it has ended, or write "
            "elsewhere",
            path=target,
        ) from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(exc.errno, exc.strerror, str(target)) from exc
        if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise InputError(
                f"{target}: cannot be written ({os.strerror(exc.errno)}); choose a folder that can "
                "be written to, or change its permissions",
                path=target,
            ) from exc
        raise InputError(
            f"{target}: cannot be written, since {lock.name} cannot be locked ({exc}); choose a "
            "folder that can be written to, on a file system that has locks",
            path=target,
        ) from exc
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def owned_path(target: Path) -> Iterator[Path]:
    """:func:`sa_runtime.system.files.atomic_path` for the one writer of a file.

    What writers left that were killed is removed first.

    Raises:
        InputError: as :func:`owned` does.

    >>> import tempfile
    >>> with owned_path(Path(tempfile.mkdtemp()) / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    """
    with owned(target):
        remove_leftovers(target.parent, re.escape(target.stem), target.suffix)
        with atomic_path(target) as temporary:
            yield temporary


def _acquired(lock: Path) -> int:
    """The locked file with our name in it; raises BlockingIOError where another holds it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, descriptor):
                since = datetime.now(UTC).isoformat(timespec="seconds")
                owner = {"pid": os.getpid(), "host": platform.node(), "since": since}
                with suppress(OSError):  # a full disk: others are refused all the same
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its owner removed the file between our opening and our locking it.
        os.close(descriptor)


def _is_still(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(lock: Path) -> str:
    try:
        owner = json.loads(lock.read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
