"""The service as an ASGI application: requests for vectors, and what runs beside them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import RunnerError, SaDeployError
from sa_runtime.service import plain, search, v2
from sa_runtime.service.docs import EMBED_BODY, INFER_BODY, REFUSALS, SEARCH_BODY, add_docs
from sa_runtime.service.door import Door
from sa_runtime.service.drift import Drift
from sa_runtime.service.gate import Gate, Job
from sa_runtime.service.keys import Keys
from sa_runtime.service.link import Kept, header
from sa_runtime.service.metrics import Metrics
from sa_runtime.service.models import Models, Served, note_answer
from sa_runtime.service.refusals import DeadlineError, RefusedError, malformed
from sa_runtime.service.replies import Vectors, named, not_found, refused, version
from sa_runtime.service.routes import Routes
from sa_runtime.service.search import Searcher
from sa_runtime.service.tickets import BatchReport
from sa_runtime.service.waiting import Doorbell, Waiting
from sa_runtime.system.environment import cores

_log = logging.getLogger(__name__)
T = TypeVar("T")
_INFER = "/v2/models/{name}/infer"
_INFER_VERSION = "/v2/models/{name}/versions/{version}/infer"


class Service:
    """Models behind HTTP.

    Args:
        models: what is served; opened and closed with the application.
        keys: of the clients; ``None`` lets everybody in.
        gallery: folder in which people are sought; ``/search`` is there where it is given.
        check_s: between two canaries, and two looks at the drift.

    Attributes:
        app: the ASGI application.
        draining: set when no further requests are wanted.
        metrics: what is counted.
    """

    def __init__(
        self,
        models: Models,
        *,
        keys: Keys | None = None,
        gallery: Path | None = None,
        check_s: float = 60.0,
    ) -> None:
        self.models = models
        self.limits = models.settings.limits
        self.gate = Gate(self.limits)
        self.draining = False
        self.metrics = Metrics()
        self._check_s = check_s
        self._gallery = gallery
        self._searcher: Searcher | None = None
        self._drift = Drift()
        self._reloading: asyncio.Future[None] | None = None
        self._asked_again = False
        self._bell = Doorbell()
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="sa-decode")
        models.on_batch = self._note_batch
        inner = FastAPI(
            title="sa-deploy",
            version=version(),
            lifespan=self.running,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            responses=REFUSALS,
        )
        add_docs(inner)
        Routes(self).add_to(inner)
        post: dict[str, Any] = {"methods": ["POST"]}
        inner.add_api_route(_INFER, self.infer, openapi_extra=INFER_BODY, **post)
        inner.add_api_route(
            _INFER_VERSION,
            self.infer,
            include_in_schema=False,
            **post,
        )
        inner.add_api_route("/embed", self.embed, openapi_extra=EMBED_BODY, **post)
        if gallery is not None:
            inner.add_api_route("/search", self.search, openapi_extra=SEARCH_BODY, **post)
        inner.add_api_route("/metrics", self.read_metrics, response_class=PlainTextResponse)
        inner.add_exception_handler(RefusedError, refused)  # type: ignore[arg-type]
        inner.add_exception_handler(HTTPException, not_found)  # type: ignore[arg-type]
        self._inner = inner
        self.app = Door(
            self._dispatch, self.metrics, keys, self.limits.write_timeout_s, self._enter
        )

    @property
    def ready(self) -> bool:
        """Whether requests are wanted: all models are open, and their last canaries passed."""
        return self.models.ready and not self.draining

    def open(self) -> None:
        """Open the models, and the gallery beside them; what is open stays so.

        Raises:
            SaDeployError: one cannot be opened, or is of another space.
        """
        self.models.open()
        if self._gallery is not None and self._searcher is None:
            self._searcher = Searcher(self._gallery, self.models.get().contract)

    @asynccontextmanager
    async def running(self, app: object = None) -> AsyncIterator[None]:
        """Open meanwhile, and watched; ``app`` is what ASGI hands to a lifespan.

        Raises:
            SaDeployError: a model cannot be opened, or its canary crops come out wrong.
        """
        await asyncio.to_thread(self.open)
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await asyncio.to_thread(self.models.close)
            self._pool.shutdown()

    def reload_all(self) -> None:
        """Swap every model for what its file holds now; one that cannot be swapped goes on.

        Asked again meanwhile, it does so once more when it is done, however often it was asked.
        """
        self._asked_again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.ensure_future(self._reload_all())

    async def _reload_all(self) -> None:
        while self._asked_again:
            self._asked_again = False
            for name in self.models.files:
                try:
                    await self.models.reload(name)
                except (SaDeployError, RefusedError) as exc:
                    _log.error("%s: goes on as it was: %s", name, exc)
                except Exception:
                    _log.exception("%s: goes on as it was", name)

    async def _watch(self) -> None:
        """Now and then: are the models still what they were, are people still what they were?"""
        while True:
            await asyncio.sleep(self._check_s)
            for served in list(self.models):
                if served in list(self.models):  # no other one has its place meanwhile
                    await self._look_at(served)

    async def _look_at(self, served: Served) -> None:
        try:
            with served:
                await asyncio.to_thread(served.check)
            found = await asyncio.to_thread(self._drift.measure, served)
            self.metrics.note_drift(served.name, found)
        except SaDeployError as exc:
            _log.error("%s: not ready: %s", served.name, exc)
        except Exception:  # whatever it is, the next look is not to be missed
            _log.exception("%s: could not be looked at", served.name)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The two endpoints that are asked all the time by a short way, the others by FastAPI's."""
        route = _route(scope)
        if route not in ("/embed", _INFER):
            await self._inner(scope, receive, send)
            return
        scope["state"]["route"] = route
        request = Request(scope, receive, send)
        try:
            if route == "/embed":
                response = await self.embed(request)
            else:
                response = await self.infer(_named(scope), request)
        except RefusedError as exc:
            response = await refused(request, exc)
        await response(scope, receive, send)

    def _enter(self, scope: Scope) -> Kept | None:
        """Keep a place for a request for vectors before anything of its body is read.

        Raises:
            RefusedError: there is none.
        """
        route = _route(scope)
        if not route:
            return None
        scope.setdefault("state", {})["route"] = route
        if route.startswith("/v2/"):
            name = _named(scope)
        else:
            asked = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])
            name = asked[0]
        batcher = self.models.get(name if name in self.models.files else "").batcher
        return Kept(batcher=batcher, place=batcher.expect(self.limits.timeout_ms / 1000))

    def _note_batch(self, served: Served, report: BatchReport) -> None:
        self.metrics.note_batch(served.name, report)
        self._drift.add(served, report.vectors)

    async def read_metrics(self) -> Response:
        """Counters and histograms for Prometheus."""
        text = self.metrics.text(self.models, self.gate)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def infer(self, name: str, request: Request, version: str = "") -> Response:
        """Vectors of crops at the model's size, by the open inference protocol."""
        self.models.get(name, version)
        async with self.gate.admitted(request) as job:
            with self.models.get(name) as served:
                length = header(request.scope, v2.HEADER_LENGTH.encode()).decode("latin-1") or None
                # Tensors in binary are looked at, not copied: a thread would cost more.
                given = (job.body, length, served.contract, self.limits.max_images)
                asked = (
                    await self._aside(v2.read_request, *given)
                    if length is None
                    else v2.read_request(*given)
                )
                job.stage("decode")
                job.hurry(asked.timeout_s)
                vectors = await self._vectors(job, served, asked.images)
                body, head = (
                    v2.write_response(served, vectors, asked)
                    if asked.binary
                    else await self._aside(v2.write_response, served, vectors, asked)
                )
                job.stage("write")
                if head is not None:
                    return Vectors(body, head, served)
                return Response(body, headers=named(served), media_type="application/json")

    async def embed(self, request: Request) -> Response:
        """Vectors of image files, or of the boxes of a frame."""

        def answer(served: Served, vectors: Embeddings) -> Response:
            body, kind, headers = plain.answer(
                served.contract,
                served.name,
                served.version,
                vectors,
                request.headers.get("accept", ""),
            )
            return Response(body, headers=headers | named(served), media_type=kind)

        plain.check_query(request.query_params)
        return await self._of_pictures(request, answer)

    async def search(self, request: Request) -> Response:
        """The nearest rows of the gallery for image files, or for the boxes of a frame."""
        searcher = self._searcher
        assert searcher is not None

        def answer(served: Served, vectors: Embeddings) -> Response:
            found = searcher.search(vectors, served.contract, request.query_params)
            body = search.answer(served.contract, served.name, served.version, found)
            return Response(body, headers=named(served), media_type="application/json")

        plain.check_query(request.query_params, search.SEVERAL, search.ONE)
        return await self._of_pictures(request, answer)

    async def _of_pictures(
        self, request: Request, answer: Callable[[Served, Embeddings], Response]
    ) -> Response:
        name = request.query_params.get("model", "")
        self.models.get(name)
        async with self.gate.admitted(request) as job:
            if "timeout_ms" in request.query_params:
                job.hurry(_milliseconds(request.query_params["timeout_ms"]) / 1000)
            pictures = await plain.read_pictures(job, self.limits)
            with self.models.get(name) as served:
                crops = await self._aside(plain.cut, pictures, served.contract, self.limits)
                job.stage("decode")
                vectors = await self._vectors(job, served, crops)
                response = await self._aside(answer, served, vectors)
                job.stage("write")
                return response

    async def _vectors(self, job: Job, served: Served, crops: Images) -> Embeddings:
        """Let crops wait for their batch, as long as their client does and their time lasts."""
        job.note(model=served.name, people=len(crops))
        kept: Kept | None = job.state.get("kept")
        place = None if kept is None or kept.batcher is not served.batcher else kept.place
        waiting = Waiting(self._bell)
        ticket = served.batcher.submit(
            crops, client=job.client, deadline=job.deadline, place=place, on_over=waiting.ring
        )
        try:
            vectors = await waiting.patiently(job, served.batcher, ticket)
        except DeadlineError as exc:
            served.statistics.failures += 1
            raise RefusedError(504, f"no answer in time: {exc}", reason="deadline") from exc
        except RunnerError as exc:
            served.statistics.failures += 1
            raise RefusedError(500, f"the model failed: {exc}", reason="failure") from exc
        job.stage("queue", ticket.queued_s)
        job.stage("infer", ticket.infer_s)
        note_answer(
            served,
            seconds=time.monotonic() - job.began,
            queue_s=ticket.queued_s,
            infer_s=ticket.infer_s,
        )
        return vectors

    async def _aside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run in a thread what would hold up the other requests."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _route(scope: Scope) -> str:
    """The endpoint for vectors that a request asks; empty where it asks another one."""
    if scope.get("method") != "POST":  # which the application's start and end have not
        return ""
    path: str = scope["path"]
    if path in ("/embed", "/search"):
        return path
    if path.startswith("/v2/models/") and path.endswith("/infer"):
        return {4: _INFER, 6: _INFER_VERSION}.get(path.count("/"), "")
    return ""


def _named(scope: Scope) -> str:
    """The model in the path of the protocol's endpoints."""
    path: str = scope["path"]
    return path.split("/", 4)[3]


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise malformed("timeout_ms: expected a number above 0")
    return value
