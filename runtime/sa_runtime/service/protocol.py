"""Uvicorn's protocol with an end to every wait, and a short way out of an overload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sa_runtime.service.door import TRANSPORT

HEAD_BYTES = 64 * 1024
"""Of a request's line and headers; 431 above."""
_AFTER_S = 1.0
"""Beyond the time of a body, which who reads it ends with an answer: nobody read this one."""


def guarded(
    read_timeout_s: float, early: Callable[[Scope], bytes | None]
) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol with the manners of this service.

    Args:
        read_timeout_s: until headers, and then the body, are there whole.
        early: the whole answer to a request that needs no more than its headers, if any: in an
            overload most are refused, which is to cost the others as little as can be.
    """

    class Guarded(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _in_head = True
        _link: Any

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._link = {"transport": transport, "lost": False, "on_lost": None}
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            self._link["lost"] = True
            if self._link["on_lost"] is not None:
                self._link["on_lost"]()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._timer is not None and self._head_bytes > HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not (self._in_head and self._timer is not None):
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._expect_nothing()
            self._in_head = False
            self._timer = self.loop.call_later(read_timeout_s + _AFTER_S, self.transport.close)
            answer = early(self._scope_so_far()) if self._is_free() else None
            if answer is not None:
                self.transport.write(answer)
                self.on_response_complete()  # what follows of its body is dropped
                return
            # Who does not take an answer is cut off by the application, who goes away given up.
            self.scope["extensions"] = {TRANSPORT: self._link}
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._expect_nothing()
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
            path, _, _ = self.url.partition(b"?")
            return {
                "method": self.parser.get_method().decode("ascii"),
                "path": path.decode("latin-1"),
                "headers": self.headers,
            }

        def _expect_head(self) -> None:
            self._expect_nothing()
            self._head_bytes, self._in_head = 0, True
            refuse = self._refuse
            self._timer = self.loop.call_later(read_timeout_s, refuse, b"408 Request Timeout")

        def _expect_nothing(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: bytes) -> None:
            self._expect_nothing()
            if not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self.transport.close()

    return Guarded
