"""A bounded queue between two stages that can end, and be cancelled while someone waits."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 (a signal, like StopIteration)
    """Another stage failed; this one is to stop."""


class Ended(Exception):  # noqa: N818
    """The channel is closed and empty."""


class Channel(Generic[T]):
    """First in, first out, at most ``capacity`` items; ``None`` for any number.

    >>> channel = Channel[int](2)
    >>> channel.put(1); channel.put(2); channel.close()
    >>> list(channel)
    [1, 2]
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = math.inf if capacity is None else capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cancelled = False

    def put(self, item: T) -> None:
        """Append an item; waits while the channel is full. Raises Cancelled."""
        with self._changed:
            while len(self._items) >= self._capacity and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def get(self, deadline: float | None = None) -> T:
        """Take the first item; waits while there is none.

        Args:
            deadline: on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: the deadline passed.
            Ended: no item will come any more.
            Cancelled: another stage failed.
        """
        with self._changed:
            while not self._items and not self._closed and not self._cancelled:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise TimeoutError
                self._changed.wait(left_s)
            if self._cancelled:
                raise Cancelled
            if not self._items:
                raise Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self.get()
            except Ended:
                return
            yield item

    def close(self) -> None:
        """No more items will come; those inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wake everyone who waits, and let every later call raise Cancelled."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
