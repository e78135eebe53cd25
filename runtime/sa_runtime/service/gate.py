"""The door of a service: what comes in at a time, how large, how fast."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

from starlette.requests import Request

from sa_runtime.service.limits import Limits
from sa_runtime.service.link import header, link_of
from sa_runtime.service.refusals import FullError, RefusedError, malformed, too_large


@dataclasses.dataclass(kw_only=True)
class Job:
    """A request that was let in, its body read.

    Attributes:
        request: as it came.
        body: whole.
        client: whose it is: the name of its key, else its address.
        began: of ``time.monotonic()``.
        deadline: likewise.
        state: of the request, where what is known of it is noted.
    """

    request: Request
    body: bytes | bytearray
    client: str
    began: float
    deadline: float
    state: dict[str, Any]

    def __post_init__(self) -> None:
        """Begin to count stages."""
        self._noted = self.began
        self._stages: dict[str, float] = self.state.setdefault("stages", {})

    def stage(self, name: str, seconds: float | None = None) -> None:
        """Note how long a stage took; since the last one by default."""
        if seconds is None:
            seconds = time.monotonic() - self._noted
        self._noted += seconds
        self._stages[name] = seconds

    def note(self, *, model: str, people: int) -> None:
        """Note what is asked for."""
        self.state["model"], self.state["people"] = model, people

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

    def admitted(self, request: Request) -> _Inside:
        """Let a request in, and read its body: ``async with`` it, which gives the :class:`Job`.

        Raises:
            RefusedError: too much at a time, too large, too slow, or gone; where it is entered.
        """
        return _Inside(self, request)


class _Inside:
    """A request between its way in and its way out."""

    __slots__ = ("_gate", "_held", "_request")

    def __init__(self, gate: Gate, request: Request) -> None:
        self._gate, self._request = gate, request
        self._held = 0

    async def __aenter__(self) -> Job:
        began = time.monotonic()
        gate, request = self._gate, self._request
        limits = gate.limits
        if gate.requests >= limits.max_requests:
            raise FullError(f"{gate.requests} requests are being answered; come again in 1 s", 1)
        stated = _stated_length(request)
        if stated is not None and stated > limits.body_bytes:
            raise too_large(
                f"a body of {stated / 1e6:.1f} MB, expected at most {limits.max_body_mb:g}; send "
                "fewer or smaller images",
                close=True,
            )
        gate.requests += 1
        try:
            self._hold(stated or 0)
            job = Job(
                request=request,
                body=await self._body(),
                client=client_of(request),
                began=began,
                deadline=began + limits.timeout_ms / 1000,
                state=request.scope.setdefault("state", {}),
            )
        except BaseException:
            self._leave()
            raise
        job.stage("read")
        return job

    async def __aexit__(self, *of_error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._gate.requests -= 1
        self._gate.held_bytes -= self._held

    def _hold(self, count: int) -> None:
        if count <= self._held:
            return
        gate = self._gate
        if gate.held_bytes + count - self._held > gate.limits.bodies_bytes:
            raise RefusedError(
                429,
                "the bodies of other requests fill the memory set aside; come again in 1 s",
                retry_after_s=1,
                close=True,
                reason="overload",
            )
        gate.held_bytes += count - self._held
        self._held = count

    async def _body(self) -> bytes | bytearray:
        link = link_of(self._request.scope)
        if link is not None and link.whole:  # what is there is not waited for
            return await self._read(bytearray())
        seconds = self._gate.limits.read_timeout_s
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                return await self._read(body)
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body was not there whole in {seconds:g} s ({len(body)} bytes came)",
                close=True,
                reason="slow",
            ) from None

    async def _read(self, body: bytearray) -> bytes | bytearray:
        limits = self._gate.limits
        while True:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the client went away", close=True, reason="gone")
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) + len(part) > limits.body_bytes:
                raise too_large(
                    f"a body of more than {limits.max_body_mb:g} MB; send fewer or smaller images",
                    close=True,
                )
            self._hold(len(body) + len(part))
            if not (more or body):
                return part
            body += part
            if not more:
                return body


def client_of(request: Request) -> str:
    """Whose a request is."""
    named = request.scope.get("state", {}).get("client")
    return str(named) if named else (request.client.host if request.client else "")


def _stated_length(request: Request) -> int | None:
    encoding = header(request.scope, b"content-encoding") or b"identity"
    if encoding.lower() != b"identity":
        raise RefusedError(
            415, "a compressed body; send it as it is, images are compressed already", close=True
        )
    stated = header(request.scope, b"content-length")
    if not stated:
        return None
    if not stated.isdigit() or len(stated) > 15:
        raise malformed("content-length: expected a number of bytes")
    return int(stated)
