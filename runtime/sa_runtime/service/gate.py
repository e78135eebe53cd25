"""The door of a service: what comes in at a time, how large, how fast."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request

from sa_runtime.service.limits import Limits
from sa_runtime.service.link import link_of
from sa_runtime.service.refusals import RefusedError, busy, malformed, too_large


@dataclasses.dataclass(kw_only=True)
class Job:
    """A request that was let in, its body read.

    Attributes:
        request: as it came.
        body: whole.
        client: whose it is: the name of its key, else its address.
        began: of ``time.monotonic()``.
        deadline: likewise.
    """

    request: Request
    body: bytearray
    client: str
    began: float
    deadline: float

    def stage(self, name: str, seconds: float | None = None) -> None:
        """Note how long a stage took; since the last one by default."""
        stages = self._state.setdefault("stages", {})
        if seconds is None:
            seconds = time.monotonic() - self.began - sum(stages.values())
        stages[name] = seconds

    def note(self, *, model: str, people: int) -> None:
        """Note what is asked for."""
        self._state["model"], self._state["people"] = model, people

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.request.scope.setdefault("state", {})
        return state

    def hurry(self, seconds: float) -> None:
        """Take a shorter time that the request asks for."""
        self.deadline = min(self.deadline, self.began + seconds)


class Gate:
    """Counts what is inside.

    Attributes:
        requests: inside.
        held_bytes: of their bodies.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.held_bytes = 0

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[Job]:
        """Let a request in, and read its body.

        Raises:
            RefusedError: too much at a time, too large, too slow, or gone.
        """
        began = time.monotonic()
        limits = self.limits
        if self.requests >= limits.max_requests:
            raise busy(f"{self.requests} requests are being answered; come again in 1 s", 1)
        stated = _stated_length(request)
        if stated is not None and stated > limits.body_bytes:
            raise too_large(
                f"a body of {stated / 1e6:.1f} MB, expected at most {limits.max_body_mb:g}; send "
                "fewer or smaller images",
                close=True,
            )
        self.requests += 1
        body = bytearray()
        held = [0]
        try:
            self._hold(stated or 0, held)
            await self._read(request, body, held)
            job = Job(
                request=request,
                body=body,
                client=client_of(request),
                began=began,
                deadline=began + limits.timeout_ms / 1000,
            )
            job.stage("read")
            yield job
        finally:
            self.requests -= 1
            self.held_bytes -= held[0]

    def _hold(self, count: int, held: list[int]) -> None:
        if count <= held[0]:
            return
        if self.held_bytes + count - held[0] > self.limits.bodies_bytes:
            raise RefusedError(
                429,
                "the bodies of other requests fill the memory set aside; come again in 1 s",
                retry_after_s=1,
                close=True,
                reason="overload",
            )
        self.held_bytes += count - held[0]
        held[0] = count

    async def _read(self, request: Request, body: bytearray, held: list[int]) -> None:
        limits = self.limits
        link = link_of(request.scope)
        # What is there whole is not waited for.
        seconds = None if link is not None and link.whole else limits.read_timeout_s
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the client went away", close=True, reason="gone")
                    body += message.get("body", b"")
                    if len(body) > limits.body_bytes:
                        raise too_large(
                            f"a body of more than {limits.max_body_mb:g} MB; send fewer or "
                            "smaller images",
                            close=True,
                        )
                    self._hold(len(body), held)
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body was not there whole in {limits.read_timeout_s:g} s ({len(body)} bytes "
                "came)",
                close=True,
                reason="slow",
            ) from None


def client_of(request: Request) -> str:
    """Whose a request is."""
    named = request.scope.get("state", {}).get("client")
    return str(named) if named else (request.client.host if request.client else "")


def _stated_length(request: Request) -> int | None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(
            415, "a compressed body; send it as it is, images are compressed already", close=True
        )
    stated = request.headers.get("content-length")
    if stated is None:
        return None
    if not (stated.isascii() and stated.isdigit()) or len(stated) > 15:
        raise malformed("content-length: expected a number of bytes")
    return int(stated)
