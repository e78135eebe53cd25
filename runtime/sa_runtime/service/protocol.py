"""Uvicorn's protocol with an end to every wait, and a short way out of an overload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sa_runtime.service.link import Kept, Link, put_link

HEAD_BYTES = 64 * 1024
"""Of a request's line and headers; 431 above."""
_AFTER_S = 1.0
"""Beyond the time of a body, which who reads it ends with an answer: nobody read this one."""


def guarded(
    read_timeout_s: float, early: Callable[[Scope], bytes | Kept | None]
) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol with the manners of this service.

    Args:
        read_timeout_s: until headers, and then the body, are there whole.
        early: what a request's headers are enough for: the whole answer where it is refused, as in
            an overload most are, which is to cost the others as little as can be; or the place that
            is kept for it while its body comes.
    """

    class Guarded(HttpToolsProtocol):
        # A deadline is set for every head and body and mostly kept: the timer looks now and then.
        _timer: asyncio.TimerHandle | None = None
        _until: float | None = None
        _then: Callable[[], None]
        _head_bytes = 0
        _in_head = True
        _link: Link

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._link = Link(transport=transport, flow=self.flow)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            if self._timer is not None:
                self._timer.cancel()
            self._forget_place()
            self._link.lost = True
            if self._link.on_lost is not None:
                self._link.on_lost()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._until is not None and self._head_bytes > HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._link.whole = False
            if not (self._in_head and self._until is not None):
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._expect(read_timeout_s + _AFTER_S, self.transport.close)
            found = early(self._scope_so_far()) if self._is_free() else None
            if isinstance(found, bytes):
                self.transport.write(found)
                self.on_response_complete()  # what follows of its body is dropped
                return
            self._forget_place()  # of a request that nobody answered
            self._link.kept = found
            # Who does not take an answer is cut off by the application, who goes away given up.
            put_link(self.scope, self._link)  # type: ignore[arg-type]
            super().on_headers_complete()
            self.cycle.transport = _Joined(self.transport, self.cycle)  # type: ignore[assignment]

        def on_message_complete(self) -> None:
            self._expect_nothing()
            self._link.whole = True
            super().on_message_complete()

        def _is_free(self) -> bool:
            """Whether the connection was used and is kept, and nothing else is under way on it."""
            return (
                self.cycle is not None
                and self.cycle.response_complete
                and not self.expect_100_continue
                and b"%" not in self.url
                and self.parser.should_keep_alive()
                and not self.parser.should_upgrade()
            )

        def _scope_so_far(self) -> Scope:
            path, _, query = self.url.partition(b"?")
            return {
                "method": self.parser.get_method().decode("ascii"),
                "path": path.decode("latin-1"),
                "query_string": query,
                "headers": self.headers,
            }

        def _forget_place(self) -> None:
            if (kept := self._link.take_kept()) is not None:
                kept.give_up()

        def _expect_head(self) -> None:
            self._head_bytes, self._in_head = 0, True
            self._expect(read_timeout_s, self._refuse_slow)

        def _expect(self, seconds: float, then: Callable[[], None]) -> None:
            self._until, self._then = self.loop.time() + seconds, then
            if self._timer is None:
                self._timer = self.loop.call_later(read_timeout_s, self._look)

        def _expect_nothing(self) -> None:
            self._until = None

        def _look(self) -> None:
            self._timer = None
            if self._until is None:
                return
            left_s = self._until - self.loop.time()
            if left_s > 0:
                self._timer = self.loop.call_later(left_s, self._look)
            else:
                self._then()

        def _refuse_slow(self) -> None:
            self._refuse(b"408 Request Timeout")

        def _refuse(self, status: bytes) -> None:
            self._expect_nothing()
            if not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self.transport.close()

    return Guarded


class _Joined:
    """A transport on which an answer's head waits for its body: one packet, not two."""

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport, self._cycle = transport, cycle
        self._head: bytes | None = None
        self._passed = False

    def write(self, data: bytes) -> None:
        if self._passed or not self._cycle.response_started:
            self._transport.write(data)
        elif self._head is None and self._cycle.scope["method"] != "HEAD":
            self._head = data
        else:
            self._passed = True
            self._transport.writelines([self._head or b"", data])

    def close(self) -> None:
        if self._head is not None and not self._passed:
            self._transport.write(self._head)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
