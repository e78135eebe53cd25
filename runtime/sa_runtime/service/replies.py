"""How answers of the service look."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from sa_runtime.service.models import Served
from sa_runtime.service.refusals import RefusedError
from sa_runtime.service.v2 import HEADER_LENGTH

BYTES = "application/octet-stream"
_HEADER_LENGTH = HEADER_LENGTH.encode()


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, headers=headers, media_type="application/json")


def named(served: Served) -> dict[str, str]:
    """The headers of an answer with vectors: whose they are, and what they compare with."""
    return {"x-model": served.name, "x-feature-space": served.contract.space}


class Vectors(Response):
    """The answer with vectors in binary, as most are; its headers are made without detours.

    Args:
        body: JSON, and the vectors behind it.
        head: length of the JSON.
        served: whose vectors they are.
    """

    def __init__(self, body: bytes, head: int, served: Served) -> None:
        self.status_code, self.background, self.body = 200, None, body
        self.raw_headers = [
            *_encoded(served.name, served.contract.space),
            (_HEADER_LENGTH, b"%d" % head),
            (b"content-length", b"%d" % len(body)),
        ]


@lru_cache(64)
def _encoded(name: str, space: str) -> list[tuple[bytes, bytes]]:
    named = {"x-model": name, "x-feature-space": space, "content-type": BYTES}
    return [(key.encode(), value.encode("latin-1")) for key, value in named.items()]


async def refused(request: Request, error: RefusedError) -> Response:
    """The answer to a request that is refused, whose reason is noted."""
    request.scope.setdefault("state", {})["reason"] = error.reason
    return reply_to(error)


def reply_to(error: RefusedError) -> Response:
    """The answer to a request that is refused."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.close:
        headers["connection"] = "close"
    return as_json({"error": str(error)}, error.status, headers)


async def not_found(request: Request, error: HTTPException) -> Response:
    """The answer where no endpoint fits."""
    headers = dict(error.headers or {})
    return as_json({"error": f"{error.detail}; see /docs"}, error.status_code, headers)


def version() -> str:
    """Of sa-deploy."""
    from importlib.metadata import version

    return version("sa-deploy")
