"""Batches across requests: crops of many clients go to a runner together, each client in turn."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import RunnerError, SaDeployError, bad_value
from sa_runtime.runners.base import Runner, fitting_batch_size
from sa_runtime.service.admission import Admission, Place
from sa_runtime.service.refusals import DeadlineError, FullError
from sa_runtime.service.tickets import BatchReport, Slice, Ticket

_SMOOTHING = 0.2
"""Weight of the last batch in the measured speed."""
_CONTRAST = 2.0
"""Standard deviation in grey levels below which an image shows nothing."""


class Batcher:
    """Forms batches and runs them, in threads of its own.

    A batch is run when it is full, or when its oldest crop has waited ``max_delay_ms``. Where more
    crops wait than it takes, the clients share it, so that one that asks for many does not keep
    the others waiting.

    Args:
        runner: an open model; it stays its owner's.
        batch_size: crops in a batch at most.
        max_delay_ms: how long a crop waits for others.
        queue_crops: waiting at most, see :class:`sa_runtime.service.admission.Admission`.
        lanes: batches that are run at a time, each in a thread of its own.
        on_batch: told of every batch, in the thread that ran it; of one at a time.

    Raises:
        InputError: a batch size or a delay out of range.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        batch_size: int = 32,
        max_delay_ms: float = 5.0,
        queue_crops: int = 128,
        lanes: int = 1,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        if not 0 <= max_delay_ms < math.inf:
            raise bad_value("max_delay_ms", max_delay_ms, "expected at least 0, and an end")
        if lanes < 1:
            raise bad_value("lanes", lanes, "expected at least 1")
        self.batch_size = fitting_batch_size(runner, batch_size)
        self._runner = runner
        self._delay_s = max_delay_ms / 1000
        self._admission = Admission(queue_crops, lanes * self.batch_size)
        self._on_batch = on_batch
        self._clients: dict[str, deque[Ticket]] = {}
        self._waiting = 0
        self._running = self._busy = 0
        self._shared = False  # what waits is the rest of a batch that lanes share
        self._crops_per_s = 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._telling = threading.Lock()
        self._lanes = [
            threading.Thread(target=self._work, name=f"sa-batches-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def waiting(self) -> int:
        """Crops that no batch has taken yet."""
        return self._waiting

    @property
    def crops_per_s(self) -> float:
        """Of one lane, measured over the last batches; 0 before the first."""
        return self._crops_per_s

    def wait_s(self, crops: int) -> float:
        """How long more crops would have to wait, by the measured speed; 0 where none is."""
        speed = self._crops_per_s * len(self._lanes)
        return (self._waiting + self._running + crops) / speed if speed else 0.0

    def expect(self, time_left_s: float = math.inf) -> Place:
        """Keep a place for the crops of a request that is still on its way.

        Raises:
            FullError: it would find none, or not be done in time.
        """
        self._refuse_late(1, time_left_s)
        place = self._admission.keep(self._waiting, self._full_s)
        if place is None:
            raise self._full()
        return place

    def give_up(self, place: Place) -> None:
        """Keep a place no longer; giving it up twice is allowed."""
        self._admission.give_up(place)

    @property
    def _full_s(self) -> float:
        """How long a full queue takes, and what is run before it."""
        speed = self._crops_per_s * len(self._lanes)
        most = self._admission.most + len(self._lanes) * self.batch_size
        return most / speed if speed else 0.0

    def _full(self) -> FullError:
        retry, most = self._retry_s, self._admission.bound
        return FullError(
            f"{self._waiting} crops wait and {most} may; come again in {retry} s", retry
        )

    @property
    def _retry_s(self) -> int:
        return max(1, math.ceil(self.wait_s(0)))

    def _refuse_late(self, crops: int, time_left_s: float) -> None:
        # Whose time is over already is told so, and not to come again.
        if 0 < time_left_s < (wait_s := self.wait_s(crops)):
            raise FullError(
                f"{self._waiting} crops wait, which takes {wait_s:.1f} s, and the request has "
                f"{time_left_s:.1f} s; come again in {self._retry_s} s",
                self._retry_s,
            )

    def submit(
        self,
        crops: Images,
        *,
        client: str = "",
        deadline: float = math.inf,
        place: Place | None = None,
        on_over: Callable[[], None] = lambda: None,
    ) -> Ticket:
        """Let crops wait for their batch.

        Args:
            crops: (N, H, W, 3) uint8 at the model's size, not changed before the ticket is done.
            client: whose they are.
            deadline: of ``time.monotonic()``.
            place: that was kept for them.
            on_over: called when there is an answer, in the thread that has it.

        Raises:
            FullError: the queue takes no more.
            RunnerError: the batcher is closed.
        """
        dim = self._runner.contract.output.dim
        ticket = Ticket(
            crops=crops,
            client=client,
            deadline=deadline,
            vectors=np.empty((len(crops), dim), np.float32),
            on_over=on_over,
        )
        if not len(crops):
            ticket.end()
            return ticket
        with self._changed:
            if self._closing:
                raise RunnerError("the model is being closed; ask again")
            self._refuse_late(len(crops), deadline - ticket.came)
            if not self._admission.admits(self._waiting, len(crops), self._full_s, place):
                raise self._full()
            self._clients.setdefault(client, deque()).append(ticket)
            before, self._waiting = self._waiting, self._waiting + len(crops)
            # Whoever waits for a batch to fill has its time: waking it for each crop is dear.
            if not before or before < self.batch_size <= self._waiting:
                self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give up a ticket: what no batch has taken is not run."""
        with self._changed:
            ticket.over = True
            self._drop(ticket)

    def close(self) -> None:
        """Run what waits, then stop; closing twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()

    def _drop(self, ticket: Ticket) -> None:
        queue = self._clients.get(ticket.client)
        if queue is not None and ticket in queue:
            queue.remove(ticket)
            self._waiting -= ticket.left
            if not queue:
                del self._clients[ticket.client]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ready():
                    if not self._waiting:
                        if self._closing:
                            return
                        self._admission.idle()
                    self._changed.wait(self._patience())
                self._admission.busy()
                batch, late = self._take()
                running = sum(part.stop - part.start for part in batch)
                self._running += running
                self._busy += 1
                if self._waiting:
                    self._changed.notify()  # another lane, of what is left
            for ticket in late:
                ticket.end(DeadlineError("its time was over while it waited for a batch"))
            if batch:
                self._run(batch)
            with self._changed:
                self._running -= running
                self._busy -= 1

    def _heads(self) -> Iterator[Ticket]:
        return (queue[0] for queue in self._clients.values())

    def _ready(self) -> bool:
        if not self._waiting:
            self._shared = False
            return False
        if self._waiting >= self.batch_size or self._shared or self._closing:
            return True
        return time.monotonic() >= min(head.came for head in self._heads()) + self._delay_s

    def _patience(self) -> float | None:
        if not self._waiting:
            return None
        oldest = min(head.came for head in self._heads())
        return max(oldest + self._delay_s - time.monotonic(), 0)

    def _take(self) -> tuple[list[Slice], list[Ticket]]:
        """The next batch, shared among the clients, and the tickets whose time is over."""
        now = time.monotonic()
        late = [t for queue in self._clients.values() for t in queue if now >= t.deadline]
        for ticket in late:
            self._drop(ticket)
        batch: list[Slice] = []
        # Lanes that have nothing to do share what waits.
        idle = len(self._lanes) - self._busy
        free = min(self.batch_size, math.ceil(self._waiting / idle))
        self._shared = free < min(self.batch_size, self._waiting)
        while free and self._clients:
            share = max(1, free // len(self._clients))
            for client in list(self._clients):
                if not free:
                    break
                queue = self._clients.pop(client)
                ticket = queue[0]
                count = min(share, free, ticket.left)
                batch.append(Slice(ticket=ticket, start=ticket.taken, stop=ticket.taken + count))
                if not ticket.taken:
                    ticket.queued_s = now - ticket.came
                ticket.taken += count
                free -= count
                self._waiting -= count
                if not ticket.left:
                    queue.popleft()
                if queue:
                    self._clients[client] = queue  # behind the others
        return batch, late

    def _run(self, batch: list[Slice]) -> None:
        parts = [part.ticket.crops[part.start : part.stop] for part in batch]
        images = parts[0] if len(parts) == 1 else np.concatenate(parts)
        waited_s = time.monotonic() - min(part.ticket.came for part in batch)
        began = time.monotonic()
        failures: list[tuple[int, str]] = []
        try:
            found = self._runner.run(images)
        except Exception:
            found, failures = self._run_alone(batch)
        else:
            row = 0
            for part in batch:
                count = part.stop - part.start
                part.ticket.vectors[part.start : part.stop] = found[row : row + count]
                row += count
        seconds = time.monotonic() - began
        speed = len(images) / max(seconds, 1e-9)
        report = BatchReport(
            crops=len(images),
            waited_s=waited_s,
            seconds=seconds,
            failed=sum(count for count, _ in failures),
            error=failures[0][1] if failures else "",
            not_finite=sum(count for count, said in failures if "not finite" in said),
            flat=_flat(images),
            vectors=found,
        )
        with self._telling:
            weight = _SMOOTHING if self._crops_per_s else 1.0
            self._crops_per_s += (speed - self._crops_per_s) * weight
            # Before the tickets: who has an answer finds it in the figures.
            self._on_batch(report)
        now = time.monotonic()
        for part in batch:
            ticket = part.ticket
            with self._telling:  # two lanes may have parts of one
                ticket.done += part.stop - part.start
                whole = ticket.done == len(ticket.crops)
            if whole:
                ticket.infer_s = now - ticket.came - ticket.queued_s
                ticket.end()

    def _run_alone(self, batch: list[Slice]) -> tuple[Embeddings, list[tuple[int, str]]]:
        """Each part by itself, so that one that fails does not take the others with it.

        Returns:
            The vectors of those that did not fail; how many crops failed, and why, part by part.
        """
        failures: list[tuple[int, str]] = []
        kept: list[Embeddings] = []
        for part in batch:
            crops = part.ticket.crops[part.start : part.stop]
            try:
                kept.append(self._runner.run(crops))
                part.ticket.vectors[part.start : part.stop] = kept[-1]
            except Exception as exc:
                failures.append((len(crops), _line(exc)))
                known = exc if isinstance(exc, SaDeployError) else RunnerError(_line(exc))
                with self._changed:
                    self._drop(part.ticket)
                part.ticket.end(known)
        dim = self._runner.contract.output.dim
        return (np.concatenate(kept) if kept else np.zeros((0, dim), np.float32)), failures


def _flat(images: Images) -> int:
    """How many of (N, H, W, 3) images are of one colour."""
    few = images[:, ::8, ::8]
    return int((few.std(axis=(1, 2, 3)) < _CONTRAST).sum())


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
