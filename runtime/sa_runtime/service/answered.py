"""What is counted, logged and traced of a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(kw_only=True)
class Answered:
    """What is known of a request at its end.

    Attributes:
        method: of HTTP.
        path: without what was asked for.
        route: of the table of endpoints, empty where none fits.
        status: 499 where the client was gone before it was answered.
        seconds: from its headers to the end of its answer.
        client: name of its key, else its address.
        id: of the request.
        reason: why it was refused; empty where it was not.
        model: that it asked for.
        people: in it.
        stages: seconds by stage.
        headers: that it came with, as ASGI has them.
    """

    method: str
    path: str
    route: str
    status: int
    seconds: float
    client: str
    id: str
    reason: str
    model: str
    people: int
    stages: dict[str, float]
    headers: Iterable[tuple[bytes, bytes]]
