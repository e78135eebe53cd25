"""What the two clients of a service share: how requests look, when they are sent again."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import ContractError, InputError, RunnerError, bad_value
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "SA_DEPLOY_KEY"
"""The API key, where none is given."""
_HEADER_LENGTH = "inference-header-content-length"
AGAIN = (429, 502, 503)
"""Answers of a service, or of what stands before it, that ask to come again."""
_LONGEST_WAIT_S = 20.0
_IMAGES = 64
"""In one request, where a service does not say how many it takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """What a service says of one of its models.

    Attributes:
        name: of the model.
        contract: what it takes, what its vectors mean.
        max_images: in one request.
        batch_size: crops that it runs at a time.
    """

    name: str
    contract: Contract
    max_images: int
    batch_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A request, and what reads its answer."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    files: list[tuple[str, tuple[str, bytes, str]]] | None = None


class Common:
    """What the two clients share: how requests look, and when they are sent again."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        key: str | None = None,
        timeout_s: float = 60.0,
        connections: int = 4,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise bad_value("server", url, "expected an address such as http://127.0.0.1:8000")
        if connections < 1:
            raise bad_value("connections", connections, "expected at least 1")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.connections = connections
        self._model = model
        self._httpx: Any = require("httpx", extra="client", purpose="the client of a service")
        key = key or os.environ.get(KEY_VARIABLE)
        self._options = {
            "base_url": self.url,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "limits": self._httpx.Limits(max_connections=connections),
            "timeout": timeout_s,
            "trust_env": False,
        }

    def _pause_s(self, attempt: int, response: httpx.Response | None, until: float) -> float:
        """How long to wait before the next attempt; negative where there is none."""
        wait_s = min(0.1 * 2**attempt, _LONGEST_WAIT_S)
        if response is not None:
            stated = response.headers.get("retry-after", "")
            wait_s = max(wait_s, min(float(stated), _LONGEST_WAIT_S) if stated.isdigit() else 0.0)
        wait_s *= random.uniform(0.5, 1.0)  # so that those refused together do not come together
        return wait_s if time.monotonic() + wait_s < until else -1.0

    def _gave_up(self, error: Exception | None, response: httpx.Response | None) -> RunnerError:
        said = f"{response.status_code} {_message(response)}" if response is not None else ""
        why = said or (str(error) or type(error).__name__)
        return RunnerError(
            f"{self.url}: no answer in {self.timeout_s:g} s ({why}); is the service up, and is it "
            "asked for more than it can do? A longer `timeout_s` waits longer"
        )

    def _checked(self, response: httpx.Response) -> httpx.Response:
        status = response.status_code
        if status < 400:
            return response
        text = f"{self.url}: {_message(response)} (status {status})"
        if status == 401:
            raise InputError(f"{text}; pass `key`, or set {KEY_VARIABLE}")
        raise RunnerError(text) if status >= 500 else InputError(text)

    def _info_of(self, listed: httpx.Response, contract: httpx.Response) -> ServerInfo:
        try:
            models: list[dict[str, Any]] = listed.json()
            names = [model["name"] for model in models]
            name = self._model or names[0]
            if name not in names:
                known = ", ".join(names)
                raise InputError(f"{self.url}: no model {name!r}; expected one of {known}")
            found = models[names.index(name)]
            return ServerInfo(
                name=name,
                contract=Contract.from_json(contract.text, source=f"{self.url} {name}"),
                max_images=int(found.get("max_images", _IMAGES)),
                batch_size=int(found["batch_size"]),
            )
        except InputError:
            raise
        except (ValueError, KeyError, IndexError, TypeError) as exc:
            raise InputError(f"{self.url}: not a service of sa-deploy ({exc})") from exc

    @property
    def _question(self) -> str:
        return f"/contract?model={self._model}" if self._model else "/contract"

    def _infer_call(self, info: ServerInfo, images: Images) -> Call:
        spec, output = info.contract.input, info.contract.output
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": spec.name,
                        "shape": list(images.shape),
                        "datatype": "UINT8",
                        "parameters": {"binary_data_size": images.nbytes},
                    }
                ],
                "outputs": [{"name": output.name, "parameters": {"binary_data": True}}],
            }
        ).encode()
        return Call(
            method="POST",
            path=f"/v2/models/{info.name}/infer",
            content=head + np.ascontiguousarray(images).tobytes(),
            headers={
                "content-type": "application/octet-stream",
                _HEADER_LENGTH: str(len(head)),
            },
        )

    def _vectors(self, info: ServerInfo, response: httpx.Response, count: int) -> Embeddings:
        shape = (count, info.contract.output.dim)
        space = response.headers.get("x-feature-space", "")
        if space != info.contract.space:
            raise ContractError(
                f"{self.url}: its vectors are of space {space or 'none'} now, and were of "
                f"{info.contract.space}: they do not compare. Begin again with a new client"
            )
        body = response.content
        start = int(response.headers.get(_HEADER_LENGTH, 0))
        if len(body) - start != 4 * shape[0] * shape[1]:
            raise RunnerError(
                f"{self.url}: an answer of {len(body) - start} bytes, expected float32 {shape}"
            )
        return np.frombuffer(body, "<f4", offset=start).reshape(shape).astype(np.float32)

    def _file_call(self, paths: Sequence[Path]) -> Call:
        files = []
        for path in paths:
            try:
                files.append(("images", (path.name, path.read_bytes(), "application/octet-stream")))
            except OSError as exc:
                raise InputError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
        return Call(
            method="POST",
            path=f"/embed?model={self._model}" if self._model else "/embed",
            headers={"accept": "application/octet-stream"},
            files=files,
        )


def resized(images: Sequence[Image] | Images, contract: Contract) -> Images:
    """Crops of any sizes -> (N, H, W, 3) uint8 at a model's.

    Raises:
        InputError: one of another type or shape.
    """
    spec = contract.input
    out = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    for index, image in enumerate(images):
        crops.check_image(image, f"crop {index}")
        crops.resize(image, spec.height, spec.width, out[index])
    return out


def joined(parts: Sequence[Embeddings], dim: int) -> Embeddings:
    """Parts one below the other; (0, dim) where there are none."""
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
