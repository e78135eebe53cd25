"""The connection behind a request, where the service's own server holds it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl

from sa_runtime.service.admission import Place
from sa_runtime.service.batcher import Batcher

_NAME = "sa_deploy.link"
_HEADERS = "sa_deploy.headers"


@dataclasses.dataclass(eq=False, kw_only=True)
class Kept:
    """A place in the queue of a model, for a request that is being read."""

    batcher: Batcher
    place: Place

    def give_up(self) -> None:
        """Nobody waits for it any more; twice is allowed."""
        self.batcher.give_up(self.place)


@dataclasses.dataclass(eq=False, kw_only=True)
class Link:
    """A connection.

    Attributes:
        transport: its own.
        flow: whether what is written has to wait.
        lost: whether the client is gone.
        on_lost: told of that.
        whole: whether the request that is being read is there with its last byte.
        kept: a place for it, until whoever answers it takes it over.
    """

    transport: asyncio.Transport
    flow: FlowControl
    lost: bool = False
    on_lost: Callable[[], None] | None = None
    whole: bool = False
    kept: Kept | None = None

    def take_kept(self) -> Kept | None:
        """The place, which is the caller's to give up from now on."""
        kept, self.kept = self.kept, None
        return kept


def put_link(scope: Scope, link: Link) -> None:
    """Hand a connection on with a request."""
    scope["extensions"] = {_NAME: link}


def link_of(scope: Scope) -> Link | None:
    """The connection of a request; ``None`` behind another server than this one's."""
    found: Link | None = scope.get("extensions", {}).get(_NAME)
    return found


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header, whose name is in small letters; empty where it has none."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if known is None:
        known = scope[_HEADERS] = dict(reversed(scope["headers"]))  # the first of a name counts
    return known.get(name, b"")
