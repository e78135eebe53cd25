"""Who is inside a runner: threads that compute, a thread that closes it, and forked processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from sa_runtime.errors import RunnerError


class Calls:
    """The calls in flight of something that many threads use and one closes.

    Every call runs inside ``with calls:``. Closing lets those in flight finish, waits for them and
    refuses later ones. A process that was forked after the opening is refused as well: the threads
    of a runtime stay behind in its parent, and a call would wait for them for ever.

    Args:
        owner: what is used, for messages: ``model.onnx: the runner``.

    >>> calls = Calls("model.onnx: the runner")
    >>> with calls:
    ...     pass
    >>> calls.close(lambda: print("freed"))
    freed
    >>> with calls:
    ...     pass
    Traceback (most recent call last):
    sa_runtime.errors.RunnerError: model.onnx: the runner is closed; open the model again
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._threads: list[int] = []
        self._closing = False
        self._freed = False

    @property
    def here(self) -> bool:
        """Whether this is the process that opened it."""
        return os.getpid() == self._process

    def __enter__(self) -> None:
        # Asked before the lock is taken: a thread of the parent may have held it while it forked.
        if not self.here:
            raise RunnerError(
                f"{self._owner} was opened by process {self._process}, from which this process "
                f"({os.getpid()}) was forked, and the runtime's threads are not here; open the "
                "model in each process after the fork, or start processes with multiprocessing's "
                "'spawn'"
            )
        with self._changed:
            if self._closing:
                raise RunnerError(f"{self._owner} is closed; open the model again")
            self._threads.append(threading.get_ident())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._threads.remove(threading.get_ident())
            if self._closing:
                self._changed.notify_all()

    def close(self, free: Callable[[], None]) -> None:
        """Refuse further calls, wait for those in flight, then call ``free``, once.

        In a forked process nothing happens: what was opened is its parent's.

        Raises:
            RunnerError: the calling thread is inside a call itself, for which it would wait.
        """
        if not self.here:
            return
        with self._changed:
            self._closing = True
            if threading.get_ident() in self._threads:
                raise RunnerError(
                    f"{self._owner} was closed inside a call of the same thread, such as in a "
                    "signal handler; close it when the call has returned"
                )
            while self._threads:
                self._changed.wait()
            if not self._freed:
                self._freed = True
                free()
