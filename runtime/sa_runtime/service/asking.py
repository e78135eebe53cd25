"""What the two clients of a service share: how requests look, when they are sent again."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import ssl
import time
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
from sa_runtime.service.pem import trusted
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)
KEY_VARIABLE = "SA_DEPLOY_KEY"
"""The API key, where none is given."""
CA_VARIABLE, CERTIFICATE_VARIABLE = "SA_DEPLOY_CA", "SA_DEPLOY_CERTIFICATE"
PRIVATE_KEY_VARIABLE = "SA_DEPLOY_PRIVATE_KEY"
"""Files in PEM, likewise."""
MODEL_HEADER = "serve_multiplexed_model_id"
"""By which Ray Serve finds a replica that holds the model."""
_HEADER_LENGTH = "inference-header-content-length"
AGAIN = (429, 502, 503)
"""Answers of a service, or of what stands before it, that ask to come again."""
_LONGEST_WAIT_S = 20.0
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

    def words(self, timeout_s: float) -> dict[str, Any]:
        """Arguments of ``httpx.Client.request``."""
        return {
            "method": self.method,
            "url": self.path,
            "content": None if self.files else self.content,
            "files": self.files,
            "headers": self.headers,
            "timeout": timeout_s,
        }


class Common(ABC):
    """What the two clients share: what they are made of, how requests look, when they come again.

    Args:
        url: of the service.
        model: name of one of its models; its first by default.
        key: for a service that wants one; ``SA_DEPLOY_KEY`` of the environment by default.
        timeout_s: for a request, with all its attempts.
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
        connections: int = 4,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        private_key: Path | str | None = None,
    ) -> None:
        _require_address(url)
        if connections < 1:
            raise bad_value("connections", connections, "expected at least 1")
        if not 0 < timeout_s < _LONGEST_S:
            raise bad_value(
                "timeout_s", timeout_s, f"expected more than 0 and less than {_LONGEST_S:g}"
            )
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.connections = connections
        self._model = model
        self._found: ServerInfo | None = None
        self.waited = False  # for a service that is away: said once
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
                "timeout": timeout_s,
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

    def _gave_up(self, outcome: httpx.Response | Exception) -> RunnerError:
        # Since TLS 1.3 whoever is refused for his certificate may only see the connection end.
        asks = self.url.startswith("https://") and isinstance(outcome, Exception)
        return RunnerError(
            f"{self.url}: no answer in {self.timeout_s:g} s ({_said(outcome)}); is the service up, "
            "and is it asked for more than it can do? A longer `timeout_s` waits longer"
            + ("; does it ask its clients for certificates (`certificate`)?" if asks else "")
        )

    def _untrusted(self, error: Exception) -> InputError | None:
        """What another attempt would fail with likewise: the two do not trust each other."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return None  # as a service that is stopped ends a connection
        if isinstance(cause, ssl.SSLCertVerificationError):
            return InputError(
                f"{self.url}: its certificate is not trusted ({cause.verify_message}); pass `ca`, "
                f"or set {CA_VARIABLE}, where it is signed by certificates of your own"
            )
        return InputError(
            f"{self.url}: no TLS with it ({cause.reason or cause}); where it asks its clients for "
            f"certificates, pass `certificate`, or set {CERTIFICATE_VARIABLE}"
        )

    def _checked(self, response: httpx.Response | Exception) -> httpx.Response:
        assert not isinstance(response, Exception)
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


class Attempts:
    """When a request is sent again, until its time is over.

    Args:
        client: whose it is.
    """

    def __init__(self, client: Common) -> None:
        self._client, self._made = client, 0
        self._until = time.monotonic() + client.timeout_s

    @property
    def left_s(self) -> float:
        """Time that is left."""
        return max(self._until - time.monotonic(), 0.001)

    def pause_s(self, outcome: httpx.Response | Exception) -> float | None:
        """How long to wait before the next attempt; ``None`` where the answer is the last one.

        Args:
            outcome: of the attempt: its answer, or what it failed with.

        Raises:
            RunnerError: no time is left for another one.
            InputError: another one would fail likewise.
        """
        # By chance, so that those refused together do not come together.
        backoff_s: float = min(0.1 * 2 ** min(self._made, 10), _LONGEST_WAIT_S)
        wait_s = backoff_s * random.uniform(0.5, 1.0)
        if isinstance(outcome, Exception):
            if untrusted := self._client._untrusted(outcome):
                raise untrusted from outcome
        elif outcome.status_code not in AGAIN:
            return None
        else:
            stated = outcome.headers.get("retry-after", "")
            if stated.isascii() and stated.isdigit():
                wait_s += min(int(stated[:6]), _LONGEST_WAIT_S)
        if isinstance(outcome, Exception) and not self._client.waited:
            self._client.waited = True
            _log.warning("%s: no answer yet (%s); asking again", self._client.url, _said(outcome))
        if time.monotonic() + wait_s >= self._until:
            cause = outcome if isinstance(outcome, Exception) else None
            raise self._client._gave_up(outcome) from cause
        self._made += 1
        return wait_s


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


def _said(outcome: httpx.Response | Exception) -> str:
    if isinstance(outcome, Exception):
        return str(outcome) or type(outcome).__name__
    return f"{outcome.status_code} {_message(outcome)}"


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
