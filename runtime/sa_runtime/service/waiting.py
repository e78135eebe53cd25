"""How a request waits for its vectors, as long as its client does and its time lasts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from starlette.requests import Request

from sa_runtime.arrays import Embeddings
from sa_runtime.service.batcher import Batcher
from sa_runtime.service.gate import Job
from sa_runtime.service.link import link_of
from sa_runtime.service.refusals import DeadlineError, RefusedError
from sa_runtime.service.tickets import Ticket


class Doorbell:
    """Calls functions on an event loop from other threads, and wakes it once for many of them."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._rung = False

    def ring(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Have a function called on the loop soon, which is the same one each time."""
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._rung = False  # before the calls are taken: who comes later rings again
        while self._calls:
            self._calls.popleft()()


class Waiting:
    """The wait of one request, from before its crops join the queue.

    Args:
        bell: of the service.
    """

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()

    def ring(self) -> None:
        """There is an answer; from any thread."""
        self._bell.ring(self._loop, self._settle)

    def _settle(self, _: object = None) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    async def patiently(self, job: Job, batcher: Batcher, ticket: Ticket) -> Embeddings:
        """The vectors of a ticket, unless its client goes away or its time is over.

        Raises:
            DeadlineError: it is over.
            RefusedError: the client is gone.
            RunnerError: the model failed.
        """
        loop = self._loop
        late = loop.call_at(loop.time() + job.deadline - time.monotonic(), self._settle)
        link = link_of(job.request.scope)
        gone: asyncio.Future[None] | None = None
        if link is not None:
            link.on_lost = self._settle
        else:  # behind another server than this one's
            gone = asyncio.ensure_future(_disconnected(job.request))
            gone.add_done_callback(self._settle)
        try:
            await self._settled
            if ticket.over:
                return ticket.answer()
            if (gone is not None and gone.done()) or (link is not None and link.lost):
                raise RefusedError(400, "the client went away", close=True, reason="gone")
            raise DeadlineError("its time was over before its batch was done")
        finally:
            late.cancel()
            if gone is not None:
                gone.cancel()
            if link is not None:
                link.on_lost = None
            if not ticket.over:
                batcher.cancel(ticket)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
