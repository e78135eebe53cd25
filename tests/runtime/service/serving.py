"""A service on a free port of this machine, in a thread, around a block of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sa_runtime.service.app import Service
from sa_runtime.service.limits import Limits
from sa_runtime.service.models import Models, ModelSettings, named_files
from sa_runtime.service.server import Address, Server, bound


class Running(NamedTuple):
    """A service that answers."""

    url: str
    host: str
    service: Service
    server: Server


@contextmanager
def serving(
    *models: Path | str,
    batch_size: int = 8,
    max_delay_ms: float = 2.0,
    limits: Limits | None = None,
    runtime: str = "onnxruntime",
    lanes: int = 1,
    at: Address | None = None,
    **service: Any,
) -> Iterator[Running]:
    settings = ModelSettings(
        runtime=runtime,
        options={"threads": 1},
        batch_size=batch_size,
        max_delay_ms=max_delay_ms,
        lanes=lanes,
        limits=limits or Limits(),
    )
    files = named_files([str(model) for model in models])
    listening, address = bound(at or Address(port=0))
    started = threading.Event()
    made = Service(Models(files, settings), **service)
    server = Server(made, address, listening, on_start=started.set)
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert started.wait(30)
        yield Running(address.url, f"{address.host}:{address.port}", made, server)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()
