"""What the runners that keep several batches in flight share."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.runners.base import BaseRunner

T = TypeVar("T")


class Pool(Generic[T]):
    """Things that one call at a time may use, made where none is free; for any thread.

    It grows to as many as are in use at once and no further.

    Args:
        make: makes one more; one thread at a time is in it.

    Attributes:
        made: all of them.

    >>> pool = Pool(list)
    >>> first = pool.take(); second = pool.take()
    >>> pool.give(first)
    >>> pool.take() is first, len(pool.made)
    (True, 2)
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.made: list[T] = []
        self._make = make
        self._free: list[T] = []
        self._emptied = False
        self._lock = threading.Lock()

    def take(self) -> T:
        """The one that was used last of those that are free, or a new one."""
        with self._lock:
            if self._free:
                return self._free.pop()
            made = self._make()
            self.made.append(made)
            return made

    def give(self, item: T) -> None:
        """Take one back."""
        with self._lock:
            if not self._emptied:
                self._free.append(item)

    def fill(self, count: int) -> None:
        """Make some before they are asked for."""
        for item in [self.take() for _ in range(count)]:
            self.give(item)

    def empty(self) -> list[T]:
        """All that were made, for good: what is given back later is let go."""
        with self._lock:
            self._emptied = True
            made = [*self.made]
            self.made.clear()
            self._free.clear()
            del self._make
            return made


class _InFlight(NamedTuple, Generic[T]):
    """A chunk of a batch on its way; ``None`` carries an empty one, so that the order holds."""

    carrier: T | None
    rows: int
    last: bool


class OverlappingRunner(BaseRunner, Generic[T]):
    """A runner whose streams keep ``depth`` batches in flight.

    A runtime adds :meth:`_start`, :meth:`_finish` and :meth:`_abandon`; what carries a batch from
    one to the next is its own.
    """

    depth = 2

    @abstractmethod
    def _start(self, inputs: NDArray[np.generic]) -> T:
        """Start a batch within ``max_batch``; returns before it is done."""

    @abstractmethod
    def _finish(self, carrier: T) -> NDArray[np.generic]:
        """Wait for a batch: (N, D) in memory of its own."""

    @abstractmethod
    def _abandon(self, carrier: T) -> None:
        """Give a batch up whose result is not wanted any more; allowed after closing."""

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return self._finish(self._start(inputs))

    def run_stream(self, batches: Iterable[Images]) -> Generator[Embeddings, None, None]:
        """Embed batch after batch, the next ones computing or waiting meanwhile.

        Raises:
            InputError: a batch of another shape or type.
            RunnerError: the runtime failed, or gave vectors that are not finite; or the runner was
                closed meanwhile.
        """
        in_flight: deque[_InFlight[T]] = deque()
        parts: list[Embeddings] = []
        try:
            # Between two batches the stream is in no call: whoever closes waits for none.
            for chunk, last in self._chunks(batches):
                with self._calls:
                    done = (
                        self._finished(in_flight, parts) if len(in_flight) == self.depth else None
                    )
                    carrier = self._start(self._encode(self._filled(chunk))) if len(chunk) else None
                    in_flight.append(_InFlight(carrier, len(chunk), last))
                # Handed out only now: the device has work while the caller has the vectors.
                if done is not None:
                    yield done
            while in_flight:
                with self._calls:
                    done = self._finished(in_flight, parts)
                if done is not None:
                    yield done
        finally:
            # Left early, or a batch failed. In a forked process the batches are the parent's.
            for flight in in_flight:
                if flight.carrier is not None and self._calls.here:
                    self._abandon(flight.carrier)

    def _chunks(self, batches: Iterable[Images]) -> Iterator[tuple[Images, bool]]:
        """Batches within ``max_batch``, and whether each is the last of what was given."""
        for images in batches:
            self.check(images)
            step = self.max_batch or max(1, len(images))
            for start in range(0, max(1, len(images)), step):
                yield images[start : start + step], start + step >= len(images)

    def _finished(
        self, in_flight: deque[_InFlight[T]], parts: list[Embeddings]
    ) -> Embeddings | None:
        """Wait for the oldest chunk; a batch's vectors where it was its last one."""
        carrier, rows, last = in_flight.popleft()
        if carrier is None:
            found: NDArray[np.generic] = np.zeros((0, self.contract.output.dim), np.float32)
        else:
            found = self._finish(carrier)[:rows]
        parts.append(self._checked(found, rows))
        if not last:
            return None
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        parts.clear()
        return joined
