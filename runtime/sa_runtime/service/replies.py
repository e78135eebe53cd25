"""How answers of the service look."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from sa_runtime.service.models import Served
from sa_runtime.service.refusals import RefusedError


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, headers=headers, media_type="application/json")


def named(served: Served) -> dict[str, str]:
    """The headers of an answer with vectors: whose they are, and what they compare with."""
    return {"x-model": served.name, "x-feature-space": served.contract.space}


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
