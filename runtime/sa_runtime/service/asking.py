"""What the two clients of a service share: how requests look, when they are sent again."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import ssl
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
CA_VARIABLE, CERTIFICATE_VARIABLE = "SA_DEPLOY_CA", "SA_DEPLOY_CERTIFICATE"
PRIVATE_KEY_VARIABLE = "SA_DEPLOY_PRIVATE_KEY"
"""Files in PEM, likewise."""
MODEL_HEADER = "serve_multiplexed_model_id"
"""By which Ray Serve finds a replica that holds the model."""
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


class Common:
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
        if not url.startswith(("http://", "https://")):
            raise bad_value("server", url, "expected an address such as http://127.0.0.1:8000")
        if connections < 1:
            raise bad_value("connections", connections, "expected at least 1")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.connections = connections
        self._model = model
        self._found: ServerInfo | None = None
        self._httpx: Any = require("httpx", extra="client", purpose="the client of a service")
        given = os.environ.get
        key = key or given(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if model:
            headers[MODEL_HEADER] = model
        self._open(
            {
                "base_url": self.url,
                "headers": headers,
                "limits": self._httpx.Limits(max_connections=connections),
                "timeout": timeout_s,
                "trust_env": False,
                "verify": _trust(
                    self.url,
                    ca or given(CA_VARIABLE),
                    certificate or given(CERTIFICATE_VARIABLE),
                    private_key or given(PRIVATE_KEY_VARIABLE),
                ),
            }
        )

    def _open(self, options: dict[str, Any]) -> None:
        """Make the connections; ``options`` are of ``httpx.Client`` and ``httpx.AsyncClient``."""
        raise NotImplementedError

    def _gave_up(self, outcome: httpx.Response | Exception) -> RunnerError:
        if isinstance(outcome, Exception):
            why = str(outcome) or type(outcome).__name__
        else:
            why = f"{outcome.status_code} {_message(outcome)}"
        # Since TLS 1.3 whoever is refused for his certificate may only see the connection end.
        asks = self.url.startswith("https://") and isinstance(outcome, Exception)
        return RunnerError(
            f"{self.url}: no answer in {self.timeout_s:g} s ({why}); is the service up, and is it "
            "asked for more than it can do? A longer `timeout_s` waits longer"
            + ("; does it ask its clients for certificates (`certificate`)?" if asks else "")
        )

    def _untrusted(self, error: Exception) -> InputError | None:
        """What another attempt would fail with likewise: the two do not trust each other."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            return None
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
        wait_s: float = min(0.1 * 2**self._made, _LONGEST_WAIT_S)
        if isinstance(outcome, Exception):
            if untrusted := self._client._untrusted(outcome):
                raise untrusted from outcome
        elif outcome.status_code not in AGAIN:
            return None
        else:
            stated = outcome.headers.get("retry-after", "")
            wait_s = max(wait_s, min(float(stated), _LONGEST_WAIT_S) if stated.isdigit() else 0.0)
        wait_s *= random.uniform(0.5, 1.0)  # so that those refused together do not come together
        if time.monotonic() + wait_s >= self._until:
            cause = outcome if isinstance(outcome, Exception) else None
            raise self._client._gave_up(outcome) from cause
        self._made += 1
        return wait_s


def _trust(
    url: str,
    ca: Path | str | None,
    certificate: Path | str | None,
    private_key: Path | str | None,
) -> ssl.SSLContext | bool:
    """Whom a client trusts, and what it shows; the default of httpx where nothing is given."""
    if not url.startswith("https://") or (ca is None and certificate is None):
        return True
    for path in (ca, certificate, private_key):
        if path is not None and not Path(path).is_file():
            raise InputError(f"{path}: no such file; expected a certificate or key in PEM")
    named = ca
    try:
        if ca is None:
            import certifi

            context = ssl.create_default_context(cafile=certifi.where())
        else:
            context = ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            named = certificate
            context.load_cert_chain(certificate, private_key)
    except (ssl.SSLError, OSError) as exc:
        raise InputError(
            f"{named}: cannot be read ({exc}); expected a certificate in PEM, with its key"
        ) from exc
    return context


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
