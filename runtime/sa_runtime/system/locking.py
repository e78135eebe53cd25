"""One process at a time, also across processes that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


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
