"""What the two clients of a service share: what they are made of, and how requests look."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import (
    ContractError,
    InputError,
    RunnerError,
    SaDeployError,
    bad_value,
    shown,
)
from sa_runtime.service.attempts import Patience, message_of
from sa_runtime.service.pem import trusted
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "SA_DEPLOY_KEY"
"""The API key, where none is given."""
CA_VARIABLE, CERTIFICATE_VARIABLE = "SA_DEPLOY_CA", "SA_DEPLOY_CERTIFICATE"
PRIVATE_KEY_VARIABLE = "SA_DEPLOY_PRIVATE_KEY"
"""Files in PEM, likewise."""
MODEL_HEADER = "serve_multiplexed_model_id"
"""By which Ray Serve finds a replica that holds the model."""
_HEADER_LENGTH = "inference-header-content-length"
_LONGEST_S = 1e6
_ROOM = 64 * 1024
"""Of a body, for what is said beside the images in it."""
_IMAGES, _BODY_MB = 64, 32.0
"""In one request, and of it, where a service does not say how much it takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """What a service says of one of its models.

    Attributes:
        name: of the model.
        contract: what it takes, what its vectors mean.
        max_images: in one request.
        max_bytes: of its body.
        batch_size: crops that it runs at a time.
    """

    name: str
    contract: Contract
    max_images: int
    max_bytes: int
    batch_size: int

    @property
    def crops_a_request(self) -> int:
        """That fit into one, in number and in bytes."""
        spec = self.contract.input
        return max(min(self.max_images, self.max_bytes // (spec.height * spec.width * 3)), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A request, and what reads its answer."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    files: list[tuple[str, tuple[str, bytes, str]]] | None = None

    def words(self, timeout_s: float, connect_s: float) -> dict[str, Any]:
        """Arguments of ``httpx.Client.request``; the times are of the whole, and to connect in."""
        return {
            "method": self.method,
            "url": self.path,
            "content": None if self.files else self.content,
            "files": self.files,
            "headers": self.headers,
            "timeout": (connect_s, timeout_s, timeout_s, timeout_s),
        }


class Common(ABC):
    """What the two clients share: what they are made of, and how requests look.

    Args:
        url: of the service.
        model: name of one of its models; its first by default.
        key: for a service that wants one; ``SA_DEPLOY_KEY`` of the environment by default.
        timeout_s: for a request, with all its attempts; as long, a service is waited for that
            answered before and is away.
        connect_timeout_s: to connect in; as long, a service is waited for that has not answered
            yet. More than ``timeout_s`` counts as that.
        connections: requests in flight at most.
        ca: certificates in PEM that the service's own is signed by, ``SA_DEPLOY_CA`` by default;
            those of certifi where neither is given.
        certificate: in PEM, for a service that asks its clients for one (mTLS), with its private
            key in the same file or in ``private_key``; ``SA_DEPLOY_CERTIFICATE`` by default.
        private_key: ``SA_DEPLOY_PRIVATE_KEY`` by default.

    Raises:
        InputError: not an address, or certificates that cannot be read.
        MissingPackageError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        key: str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        connections: int = 4,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        private_key: Path | str | None = None,
    ) -> None:
        _require_address(url)
        if connections < 1:
            raise bad_value("connections", connections, "expected at least 1")
        for name, value in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s)):
            if not 0 < value < _LONGEST_S:
                raise bad_value(name, value, f"expected more than 0 and less than {_LONGEST_S:g}")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._patience = Patience(self.url, timeout_s, self.connect_timeout_s)
        self.connections = connections
        self._model = model
        self._found: ServerInfo | None = None
        self._httpx: Any = require("httpx", extra="client", purpose="the client of a service")
        given = os.environ.get
        # A file that a key was read from ends with a line's end.
        key = (key or given(KEY_VARIABLE) or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"`key`, or {KEY_VARIABLE}: holds what no key does; expected letters and digits, "
                "as `openssl rand -hex 32` gives them"
            )
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if model.isascii() and model.isprintable():
            headers[MODEL_HEADER] = model
        self._open(
            {
                "base_url": self.url,
                "headers": headers,
                "limits": self._httpx.Limits(max_connections=connections),
                "timeout": self._httpx.Timeout(timeout_s, connect=self.connect_timeout_s),
                "trust_env": False,
                "verify": trusted(
                    self.url,
                    ca or given(CA_VARIABLE),
                    certificate or given(CERTIFICATE_VARIABLE),
                    private_key or given(PRIVATE_KEY_VARIABLE),
                ),
            }
        )

    @abstractmethod
    def _open(self, options: dict[str, Any]) -> None:
        """Make the connections; ``options`` are of ``httpx.Client`` and ``httpx.AsyncClient``."""

    def _checked(self, response: httpx.Response | Exception) -> httpx.Response:
        assert not isinstance(response, Exception)
        status = response.status_code
        if status < 400:
            return response
        text = f"{self.url}: {message_of(response)} (status {status})"
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
            body_mb = float(found.get("max_body_mb", _BODY_MB))
            return ServerInfo(
                name=name,
                contract=Contract.from_json(contract.text, source=f"{self.url} {name}"),
                max_images=max(int(found.get("max_images", _IMAGES)), 1),
                max_bytes=max(int(body_mb * 1e6) - _ROOM, 1),
                batch_size=int(found["batch_size"]),
            )
        except SaDeployError:
            raise
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, AttributeError) as exc:
            raise InputError(f"{self.url}: not a service of sa-deploy ({exc})") from exc

    @property
    def _question(self) -> str:
        return self._asking_for("/contract")

    def _asking_for(self, path: str) -> str:
        return f"{path}?model={quote(self._model, safe='')}" if self._model else path

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
            path=f"/v2/models/{quote(info.name, safe='')}/infer",
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
        body, stated = response.content, response.headers.get(_HEADER_LENGTH, "0")
        start = len(body) - 4 * shape[0] * shape[1]
        if start < 0 or stated != str(start):
            raise RunnerError(
                f"{self.url}: an answer of {len(body)} bytes, {shown(stated)} before the vectors; "
                f"expected float32 {shape}"
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
            path=self._asking_for("/embed"),
            headers={"accept": "application/octet-stream"},
            files=files,
        )


def _require_address(url: str) -> None:
    """Refuse what is no address of a service."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is none, brackets that do not fit
        parts, port = urlsplit(""), 0
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not url.isprintable()
        or " " in url
    ):
        hidden = f"{url.partition('@')[0][:8]}..." if "@" in url else url
        raise bad_value("server", hidden, "expected an address such as http://127.0.0.1:8000")
