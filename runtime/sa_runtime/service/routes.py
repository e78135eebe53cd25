"""What the service says of itself: health, metadata, statistics; and how models are swapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson
from fastapi import FastAPI, Request, Response

from sa_runtime.errors import SaDeployError
from sa_runtime.service import v2
from sa_runtime.service.docs import LOAD_BODY
from sa_runtime.service.gate import Gate
from sa_runtime.service.limits import Limits
from sa_runtime.service.models import Models, Served
from sa_runtime.service.refusals import RefusedError, malformed
from sa_runtime.service.replies import as_json, version

_MODEL = "/v2/models/{name}"


class Host(Protocol):
    """What the endpoints ask of the service that they belong to."""

    models: Models
    gate: Gate
    limits: Limits
    draining: bool

    @property
    def ready(self) -> bool:
        """Whether requests are wanted."""


class Routes:
    """The endpoints that need no batch.

    Args:
        service: whose they are.
    """

    def __init__(self, service: Host) -> None:
        self._service = service
        self._models = service.models

    def add_to(self, app: FastAPI) -> None:
        """Add them to an application."""
        get: dict[str, Callable[..., Any]] = {
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            "/v2": self.metadata,
            "/v2/models/stats": self.all_statistics,
            "/models": self.list_models,
            "/contract": self.contract,
        }
        of_model: dict[str, Callable[..., Any]] = {
            "": self.model_metadata,
            "/ready": self.model_ready,
            "/config": self.model_config,
            "/stats": self.statistics,
        }
        aside: dict[str, Any] = {"include_in_schema": False}
        for path, handler in of_model.items():
            get[f"{_MODEL}{path}"] = handler
            app.add_api_route(f"{_MODEL}/versions/{{version}}{path}", handler, **aside)
        for path, handler in get.items():
            app.add_api_route(path, handler)
            app.add_api_route(path, handler, methods=["HEAD"], **aside)  # as some balancers ask
        app.add_api_route("/v2/repository/index", self.index, methods=["POST"])
        app.add_api_route(
            "/v2/repository/models/{name}/load",
            self.load,
            methods=["POST"],
            openapi_extra=LOAD_BODY,
        )

    async def live(self) -> Response:
        """Whether the process answers."""
        return as_json({"live": True})

    async def ready(self) -> Response:
        """Whether requests are wanted."""
        ready = self._service.ready
        return as_json({"live": True, "ready": ready}, 200 if ready else 503)

    async def metadata(self) -> Response:
        """What the server is and which extensions of the protocol it has."""
        return as_json(v2.server_metadata(version()))

    async def list_models(self) -> Response:
        """The models, with the spaces of their vectors."""
        return as_json([self._summary(served) for served in self._models])

    async def contract(self, model: str = "") -> Response:
        """The contract of a model: what it takes, what its vectors mean."""
        contract = self._models.get(model).contract
        return Response(contract.to_json(), media_type="application/json")

    async def model_metadata(self, name: str, version: str = "") -> Response:
        """Inputs and outputs of a model."""
        return as_json(v2.model_metadata(self._models.get(name, version)))

    async def model_ready(self, name: str, version: str = "") -> Response:
        """Whether a model's last canary passed."""
        ready = self._models.get(name, version).healthy and not self._service.draining
        return as_json({"name": name, "ready": ready}, 200 if ready else 503)

    async def model_config(self, name: str, version: str = "") -> Response:
        """How a model's batches form, in Triton's words."""
        delay_ms = self._models.settings.max_delay_ms
        return as_json(v2.model_config(self._models.get(name, version), delay_ms))

    async def statistics(self, name: str, version: str = "") -> Response:
        """What a model has done."""
        return as_json({"model_stats": [v2.model_statistics(self._models.get(name, version))]})

    async def all_statistics(self) -> Response:
        """What all models have done."""
        return as_json({"model_stats": [v2.model_statistics(served) for served in self._models]})

    async def index(self) -> Response:
        """The models and their states, in Triton's words."""
        return as_json(
            [
                {
                    "name": served.name,
                    "version": str(served.version),
                    "state": "READY" if served.healthy else "UNAVAILABLE",
                    "reason": served.fault,
                }
                for served in self._models
            ]
        )

    async def load(self, name: str, request: Request) -> Response:
        """Put the file that a model was opened from in the place of the one that runs."""
        state = request.scope.get("state", {})
        if state.get("client") and not state.get("admin"):
            raise RefusedError(403, "this key may not swap models", reason="forbidden")
        async with self._service.gate.admitted(request) as job:
            any_space = _any_space(bytes(job.body))
            try:
                served = await self._models.reload(name, any_space=any_space)
            except SaDeployError as exc:
                raise RefusedError(409, str(exc), reason="not swapped") from exc
            return as_json(self._summary(served))

    def _summary(self, served: Served) -> dict[str, Any]:
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
            "max_images": self._service.limits.max_images,
            "max_body_mb": self._service.limits.max_body_mb,
        }


def _any_space(body: bytes) -> bool:
    if not body:
        return False
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise malformed(f"the request is not JSON ({exc})") from exc
    parameters = fields.get("parameters", {}) if isinstance(fields, dict) else None
    found = parameters.get("any_space", False) if isinstance(parameters, dict) else None
    if not isinstance(found, bool):
        raise malformed('expected {"parameters": {"any_space": true}}, or nothing')
    return found
