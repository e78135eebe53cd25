"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import RunnerError
from sa_runtime.service import plain, v2
from sa_runtime.service.docs import EMBED_BODY, INFER_BODY, add_docs
from sa_runtime.service.gate import Gate, Job
from sa_runtime.service.limits import Limits
from sa_runtime.service.models import Models, Served, note_answer
from sa_runtime.service.refusals import DeadlineError, FullError, RefusedError, busy, malformed
from sa_runtime.system.environment import cores

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Service:
    """Models behind HTTP.

    Args:
        models: what is served; opened and closed with the application.

    Attributes:
        app: the ASGI application.
        draining: set when no further requests are wanted.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self.limits = models.settings.limits
        self.gate = Gate(self.limits)
        self.draining = False
        self.opening: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="sa-decode")
        self.app = FastAPI(
            title="sa-deploy",
            version=_version(),
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
        )
        add_docs(self.app)
        self._add_routes()

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(self.models.open)
        try:
            yield
        finally:
            await asyncio.to_thread(self.models.close)
            self._pool.shutdown()

    @property
    def ready(self) -> bool:
        """Whether requests are wanted: all models are open, and their last canaries passed."""
        return self.models.ready and not self.draining

    def _add_routes(self) -> None:
        app = self.app
        health, model = "/v2/health", "/v2/models/{name}"
        get: list[tuple[str, Callable[..., Any]]] = [
            (f"{health}/live", self.live),
            (f"{health}/ready", self.is_ready),
            ("/v2", self.metadata),
            ("/v2/models/stats", self.all_statistics),
            ("/models", self.list_models),
            ("/contract", self.contract),
        ]
        for version in ("", "/versions/{version}"):
            get += [
                (f"{model}{version}", self.model_metadata),
                (f"{model}{version}/ready", self.model_ready),
                (f"{model}{version}/config", self.model_config),
                (f"{model}{version}/stats", self.statistics),
            ]
            app.add_api_route(
                f"{model}{version}/infer",
                self.infer,
                methods=["POST"],
                openapi_extra=INFER_BODY,
                include_in_schema=not version,
            )
        for path, handler in get:
            app.add_api_route(path, handler, include_in_schema="version" not in path)
        app.add_api_route("/embed", self.embed, methods=["POST"], openapi_extra=EMBED_BODY)
        app.add_exception_handler(RefusedError, _refused)  # type: ignore[arg-type]

    async def live(self) -> Response:
        """Whether the process answers."""
        return Response()

    async def is_ready(self) -> Response:
        """Whether requests are wanted."""
        return Response(status_code=200 if self.ready else 503)

    async def metadata(self) -> Response:
        """What the server is and which extensions of the protocol it has."""
        return _json(v2.server_metadata(_version()))

    async def list_models(self) -> Response:
        """The models, with the spaces of their vectors."""
        return _json([_summary(served, self.limits) for served in self.models])

    async def contract(self, model: str = "") -> Response:
        """The contract of a model: what it takes, what its vectors mean."""
        contract = self.models.get(model).contract
        return Response(contract.to_json(), media_type="application/json")

    async def model_metadata(self, name: str, version: str = "") -> Response:
        """Inputs and outputs of a model."""
        return _json(v2.model_metadata(self._model(name, version)))

    async def model_ready(self, name: str, version: str = "") -> Response:
        """Whether a model's last canary passed."""
        ready = self._model(name, version).healthy and not self.draining
        return Response(status_code=200 if ready else 503)

    async def model_config(self, name: str, version: str = "") -> Response:
        """How a model's batches form, in Triton's words."""
        delay_ms = self.models.settings.max_delay_ms
        return _json(v2.model_config(self._model(name, version), delay_ms))

    async def statistics(self, name: str, version: str = "") -> Response:
        """What a model has done."""
        return _json({"model_stats": [v2.model_statistics(self._model(name, version))]})

    async def all_statistics(self) -> Response:
        """What all models have done."""
        return _json({"model_stats": [v2.model_statistics(served) for served in self.models]})

    async def infer(self, name: str, request: Request, version: str = "") -> Response:
        """Vectors of crops at the model's size, by the open inference protocol."""
        self._check_queue(self._model(name, version))
        async with self.gate.admitted(request) as job:
            with self.models.lease(name) as served:
                length = request.headers.get(v2.HEADER_LENGTH)
                maximum = self.limits.max_images
                asked = await self._aside(
                    v2.read_request, job.body, length, served.contract, maximum
                )
                job.hurry(asked.timeout_s)
                vectors = await self._vectors(job, served, asked.images)
                body, head = await self._aside(v2.write_response, served, vectors, asked)
                headers = _named(served)
                if head is not None:
                    headers[v2.HEADER_LENGTH] = str(head)
                kind = "application/json" if head is None else plain.BYTES
                return Response(body, headers=headers, media_type=kind)

    async def embed(self, request: Request) -> Response:
        """Vectors of image files, or of the boxes of a frame."""
        name = request.query_params.get("model", "")
        self._check_queue(self.models.get(name))
        async with self.gate.admitted(request) as job:
            if "timeout_ms" in request.query_params:
                job.hurry(_milliseconds(request.query_params["timeout_ms"]) / 1000)
            pictures = await plain.read_pictures(job, self.limits)
            with self.models.lease(name) as served:
                contract = served.contract
                crops = await self._aside(plain.cut, pictures, contract, self.limits)
                vectors = await self._vectors(job, served, crops)
                accept = request.headers.get("accept", "")
                body, kind, headers = await self._aside(
                    plain.answer, contract, served.name, served.version, vectors, accept
                )
                return Response(body, headers=headers | _named(served), media_type=kind)

    async def _vectors(self, job: Job, served: Served, crops: Images) -> Embeddings:
        """Let crops wait for their batch, as long as their client does and their time lasts."""
        batcher = served.batcher
        try:
            ticket = batcher.submit(crops, client=job.client, deadline=job.deadline)
        except FullError as exc:
            raise busy(str(exc), exc.retry_after_s) from exc
        done = asyncio.wrap_future(ticket.future)
        gone = asyncio.ensure_future(_disconnected(job.request))
        try:
            left = max(job.deadline - time.monotonic(), 0)
            waiting: set[asyncio.Future[Any]] = {done, gone}
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                vectors = done.result()
            elif gone.done():
                raise RefusedError(400, "the client went away", close=True, reason="gone")
            else:
                raise DeadlineError("its time was over while it was being run")
        except (DeadlineError, RunnerError) as exc:
            served.statistics.failures += 1
            if isinstance(exc, DeadlineError):
                raise RefusedError(504, f"no answer in time: {exc}", reason="deadline") from exc
            raise RefusedError(500, f"the model failed: {exc}", reason="failure") from exc
        finally:
            gone.cancel()
            if not done.done():
                batcher.cancel(ticket)
        note_answer(
            served,
            seconds=time.monotonic() - job.began,
            queue_s=ticket.queued_s,
            infer_s=ticket.infer_s,
        )
        return vectors

    def _check_queue(self, served: Served) -> None:
        """Refuse before the body is read what would find no place anyway."""
        try:
            served.batcher.check(1, self.limits.timeout_ms / 1000)
        except FullError as exc:
            raise busy(str(exc), exc.retry_after_s) from exc

    async def _aside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run in a thread what would hold up the other requests."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _model(self, name: str, version: str) -> Served:
        served = self.models.get(name)
        if version and version != str(served.version):
            raise RefusedError(
                404, f"model {served.name!r} has version {served.version}, not {version[:20]!r}"
            )
        return served


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise malformed("timeout_ms: expected a number above 0")
    return value


def _summary(served: Served, limits: Limits) -> dict[str, Any]:
    contract = served.contract
    return {
        "name": served.name,
        "version": served.version,
        "ready": served.healthy,
        "space": contract.space,
        "embedding": contract.output.embedding,
        "dim": contract.output.dim,
        "precision": contract.precision,
        "runtime": served.runner.name,
        "batch_size": served.batcher.batch_size,
        "max_images": limits.max_images,
    }


def _named(served: Served) -> dict[str, str]:
    return {"x-model": served.name, "x-feature-space": served.contract.space}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps(value)
    return Response(body, status, headers=headers, media_type="application/json")


async def _refused(request: Request, error: RefusedError) -> Response:
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.close:
        headers["connection"] = "close"
    request.scope.setdefault("state", {})["refused"] = error.reason
    return _json({"error": str(error)}, error.status, headers)


def _version() -> str:
    from importlib.metadata import version

    return version("sa-deploy")
