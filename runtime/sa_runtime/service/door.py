"""Around every request: who asks, how long it takes, what is counted and logged of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sa_runtime.service.answered import Answered
from sa_runtime.service.keys import Keys
from sa_runtime.service.link import Kept, header, link_of
from sa_runtime.service.metrics import Metrics
from sa_runtime.service.refusals import RefusedError
from sa_runtime.service.replies import as_json, reply_to
from sa_runtime.service.tracing import record

_log = logging.getLogger("sa_runtime.service.access")
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Asked without a key: what balancers and orchestrators probe."""
_ID = re.compile(r"[\w.-]{1,64}")
_STOPPED = RefusedError(
    503,
    "the service is being stopped, and this request was not done; ask again",
    retry_after_s=1,
    close=True,
    reason="stopped",
)
_UPGRADE = RefusedError(
    400,
    "a body behind Upgrade, where none can be read; ask by HTTP/1.1 alone, as Java's HttpClient "
    "does with version(HTTP_1_1), and curl where it is told nothing else",
    close=True,
    reason="malformed",
)


class Door:
    """Wraps the application.

    Args:
        app: what answers.
        metrics: what counts.
        keys: of the clients; ``None`` lets everybody in.
        write_timeout_s: until a client has taken a part of its answer.
        enter: keeps a place for a request that needs one, or refuses it where there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        keys: Keys | None,
        write_timeout_s: float,
        enter: Callable[[Scope], Kept | None] = lambda scope: None,
    ) -> None:
        self._app, self._metrics, self._keys = app, metrics, keys
        self._write_timeout_s = write_timeout_s
        self._enter = enter
        self._first, self._ids = secrets.token_hex(6), itertools.count()

    def _next_id(self) -> str:
        return f"{self._first}{next(self._ids):06x}"

    def early(self, scope: Scope) -> bytes | Kept | None:
        """What a request's headers are enough for.

        Returns:
            The whole answer to one that finds no place, where only its number is noted; the place
            that is kept for another one.
        """
        if _log.isEnabledFor(logging.INFO) or not self._admits(scope, {}):
            return None
        try:
            return self._enter(scope)
        except RefusedError as exc:
            retry_s, reason, said = exc.retry_after_s, exc.reason, str(exc)
            if retry_s is None or exc.status != 429 or header(scope, b"x-request-id"):
                return None
        self._metrics.count(scope["state"]["route"], 429, reason)
        body = orjson.dumps({"error": said})
        return (
            b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nretry-after: %d\r\nx-request-id: %b\r\n\r\n%b"
            % (len(body), retry_s, self._next_id().encode(), body)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whatever fails unforeseen is a 500 that tells nothing."""
        if scope["type"] != "http":
            try:
                await self._app(scope, receive, send)
            except Exception:
                _log.exception("the service did not start")  # uvicorn's log is not to be heard
                raise
            return
        began = time.monotonic()
        asked = header(scope, b"x-request-id").decode("latin-1")
        state: dict[str, Any] = {"id": asked if _ID.fullmatch(asked) else self._next_id()}
        scope["state"] = state
        scope["fastapi.telemetry"] = None  # newer versions would trace a second time
        status = 0
        link = link_of(scope)
        kept = None if link is None else link.take_kept()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", state["id"].encode()),
                ]
            if link is not None and not link.flow.write_paused:
                await send(message)  # waits for nothing
                return
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send(message)
            except TimeoutError:
                state["reason"] = "slow"
                raise _GoneError from None

        try:
            if link is not None and _upgrades_with_body(scope):
                state["reason"] = _UPGRADE.reason
                await reply_to(_UPGRADE)(scope, receive, answer)
            elif self._admits(scope, state):
                try:
                    state["kept"] = kept = kept or self._enter(scope)
                except RefusedError as refusal:
                    state["reason"] = refusal.reason
                    await reply_to(refusal)(scope, receive, answer)
                else:
                    await self._app(scope, receive, answer)
            else:
                state["reason"] = "no key"
                unknown = as_json(
                    {"error": "no valid key; send it as Authorization: Bearer KEY"},
                    401,
                    {"www-authenticate": "Bearer"},
                )
                await unknown(scope, receive, answer)
        except _GoneError:
            status = 499
            if link is not None:
                link.transport.abort()  # the connection is of no use any more
        except asyncio.CancelledError:
            if status or link is None:  # an answer that has begun ends with its connection
                raise
            state["reason"] = _STOPPED.reason
            await reply_to(_STOPPED)(scope, receive, answer)
        except Exception:
            _log.exception("%s %s: request %s failed", scope["method"], scope["path"], state["id"])
            state["reason"] = "defect"
            if not status:
                await as_json({"error": f"a defect; request {state['id']}"}, 500)(
                    scope, receive, answer
                )
        finally:
            if kept is not None:
                kept.give_up()
            self._note(scope, state, status or 499, time.monotonic() - began)

    def _admits(self, scope: Scope, state: dict[str, Any]) -> bool:
        if self._keys is None or scope["path"] in OPEN_PATHS:
            return True
        given = header(scope, b"authorization").decode("latin-1")
        kind, _, key = given.partition(" ")
        holder = self._keys.holder(key.strip() if kind.lower() == "bearer" else given)
        if holder is None:
            return False
        state["client"], state["admin"] = holder.name, holder.admin
        return True

    def _note(
        self,
        scope: Scope,
        state: dict[str, Any],
        status: int,
        seconds: float,
    ) -> None:
        route = str(state.get("route") or getattr(scope.get("route"), "path", ""))
        who = scope.get("client") or ("", 0)
        answered = Answered(
            method=scope["method"],
            path=scope["path"],
            route=route,
            status=status,
            seconds=seconds,
            client=state.get("client") or who[0],
            id=state["id"],
            reason=state.get("reason", ""),
            model=state.get("model", ""),
            people=state.get("people", 0),
            stages=state.get("stages", {}),
            headers=scope["headers"],
        )
        self._metrics.note(answered)
        record(answered)
        if scope["path"] in OPEN_PATHS or not _log.isEnabledFor(logging.INFO):
            return
        _log.info(
            "%s %s: %d in %.1f ms%s",
            answered.method,
            answered.path[:200],
            status,
            seconds * 1000,
            f" ({answered.reason})" if answered.reason else "",
            extra={
                "request": answered.id,
                "client": answered.client,
                "status": status,
                "seconds": round(seconds, 6),
                "model": answered.model,
                "people": answered.people,
                "reason": answered.reason,
                "stages": {name: round(s, 6) for name, s in answered.stages.items()},
            },
        )


def _upgrades_with_body(scope: Scope) -> bool:
    """Whether the parser takes what follows the headers for another protocol than HTTP."""
    return bool(
        header(scope, b"upgrade")
        and header(scope, b"content-length") != b"0"
        and (header(scope, b"content-length") or header(scope, b"transfer-encoding"))
    )


class _GoneError(Exception):
    """The client does not take its answer."""
