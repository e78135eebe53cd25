"""Many models on few replicas of Ray Serve: each holds some, and opens others when they are asked.

Ray hands a request that names its model in the header :data:`MODEL_HEADER`, as the clients of this
package do, to a replica that holds it already.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from sa_runtime.errors import SaDeployError
from sa_runtime.service.app import Service
from sa_runtime.service.asking import MODEL_HEADER
from sa_runtime.service.door import OPEN_PATHS
from sa_runtime.service.keys import Keys
from sa_runtime.service.models import Models, ModelSettings
from sa_runtime.service.replies import as_json
from sa_runtime.system.extras import require

_QUIET_S = 0.2
"""Without a request before a model is closed: one may be on its way to it."""


class Held:
    """A model that a replica has open, with the service around it.

    Args:
        service: of this one model.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.users = 0
        self._stack = AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._closed = False

    async def open(self) -> None:
        """Open the model and let its canary pass.

        Raises:
            SaDeployError: it cannot be opened, or its canary crops come out wrong.
        """
        await self._stack.enter_async_context(self.service.running())

    def __del__(self) -> None:
        """Ray calls this in a thread when another model takes the place: end what is in flight."""
        if self._closed or threading.get_ident() == self._thread:
            return
        self._closed = True
        quiet = time.monotonic()
        while time.monotonic() - quiet < _QUIET_S:
            time.sleep(_QUIET_S / 10)
            quiet = time.monotonic() if self.users else quiet
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()


class InTurns:
    """The application of a replica that holds no more than some models at a time.

    A request names its model in the header :data:`MODEL_HEADER`, in its path or by ``?model=``;
    the first is taken where it names none.

    Args:
        files: artefacts by the name that requests call them by.
        settings: how they are opened.
        keys: of the clients; ``None`` lets everybody in.
        most: models that are open at a time.
    """

    def __init__(
        self, files: Mapping[str, Path], settings: ModelSettings, keys: Keys | None, most: int
    ) -> None:
        serve = require("ray.serve", extra="scale", purpose="a service on Ray")
        self._files = files

        @serve.multiplexed(max_num_models_per_replica=most)  # type: ignore[untyped-decorator]
        async def held(name: str) -> Held:
            found = Held(Service(Models({name: files[name]}, settings), keys=keys))
            await found.open()
            return found

        self._held: Any = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the service of its model."""
        if scope["type"] == "lifespan":
            kind = ""
            while kind != "lifespan.shutdown":
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
            return
        if scope["path"] in OPEN_PATHS:
            await as_json({})(scope, receive, send)
            return
        name = self._name(scope)
        if name not in self._files:
            known = ", ".join(self._files)
            said = {"error": f"no model {name[:80]!r}; expected one of {known}"}
            await as_json(said, 404)(scope, receive, send)
            return
        try:
            found: Held = await self._held(name)
        except SaDeployError as exc:
            await as_json({"error": str(exc)}, 503, {"retry-after": "1"})(scope, receive, send)
            return
        found.users += 1
        try:
            await found.service.app(scope, receive, send)
        finally:
            found.users -= 1

    def _name(self, scope: Scope) -> str:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if MODEL_HEADER.encode() in headers:
            return headers[MODEL_HEADER.encode()].decode("latin-1")
        path: str = scope["path"]
        if path.startswith("/v2/models/") and not path.endswith("/v2/models/stats"):
            return path.split("/")[3]
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("model", [])
        return asked[0] if asked else next(iter(self._files))
