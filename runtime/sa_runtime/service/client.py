"""Vectors from a service: retries where it is busy, no more in flight than it takes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

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
_AGAIN = (429, 502, 503)
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
class _Call:
    """A request, and what reads its answer."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    files: list[tuple[str, tuple[str, bytes, str]]] | None = None


class _Common:
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

    def _info(self, listed: httpx.Response, contract: httpx.Response) -> ServerInfo:
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

    def _infer_call(self, info: ServerInfo, images: Images) -> _Call:
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
        return _Call(
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

    def _file_call(self, paths: Sequence[Path]) -> _Call:
        files = []
        for path in paths:
            try:
                files.append(("images", (path.name, path.read_bytes(), "application/octet-stream")))
            except OSError as exc:
                raise InputError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
        return _Call(
            method="POST",
            path=f"/embed?model={self._model}" if self._model else "/embed",
            headers={"accept": "application/octet-stream"},
            files=files,
        )


class Client(_Common):
    """The embedder of a service that ``sa-deploy serve`` runs.

    ::

        with Client("http://127.0.0.1:8000") as client:
            vectors = client.embed_boxes(frame, boxes)   # (N, D) float32, rows of unit length

    Crops are cut and resized here, by the same code as everywhere, and travel as bytes; what is
    more than a request takes is sent in several, ``connections`` of them at a time. A service that
    is busy is asked again when it says, until ``timeout_s`` is over. Any thread may call it.

    Args:
        url: of the service.
        model: name of one of its models; its first by default.
        key: for a service that wants one; ``SA_DEPLOY_KEY`` of the environment by default.
        timeout_s: for a request, with all its attempts.
        connections: requests in flight at most.

    Raises:
        InputError: not an address.
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
    ) -> None:
        super().__init__(url, model=model, key=key, timeout_s=timeout_s, connections=connections)
        self._http: httpx.Client = self._httpx.Client(**self._options)
        self._senders = ThreadPoolExecutor(connections, thread_name_prefix="sa-client")
        self._found: ServerInfo | None = None

    @property
    def info(self) -> ServerInfo:
        """What the service says of the model, asked once.

        Raises:
            RunnerError: the service does not answer.
            InputError: it has no such model, or wants a key.
        """
        if self._found is None:
            listed = self._send(_Call(method="GET", path="/models"))
            contract = self._send(_Call(method="GET", path=self._question))
            self._found = self._info(listed, contract)
        return self._found

    @property
    def contract(self) -> Contract:
        """What the model expects and what its vectors mean."""
        return self.info.contract

    @property
    def space(self) -> str:
        """Id of the feature space; vectors compare only where it is equal."""
        return self.contract.space

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self.contract.output.dim

    def embed(self, images: Sequence[Image] | Images) -> Embeddings:
        """Embed crops, each (H, W, 3) uint8 BGR of its own size -> (N, D) float32.

        Raises:
            InputError: a crop of another type or shape, or what the service refuses.
            RunnerError: the service does not answer, or failed.
        """
        return self.run(_resized(images, self.contract))

    def embed_boxes(self, frame: Image, boxes_xyxy: ArrayLike) -> Embeddings:
        """Embed the boxes of one frame (H, W, 3) uint8 BGR -> (N, D) float32.

        Raises:
            InputError: a box that holds no pixel of the frame, or what the service refuses.
            RunnerError: the service does not answer, or failed.
        """
        spec = self.contract.input
        return self.run(crops.crop_batch(frame, boxes_xyxy, spec.height, spec.width))

    def embed_paths(self, paths: Sequence[Path | str]) -> Embeddings:
        """Embed image files, which the service decodes -> (N, D) float32; row i is file i.

        Raises:
            InputError: a file that cannot be read, or is no whole image.
            RunnerError: the service does not answer, or failed.
        """
        info = self.info
        files = [Path(path) for path in paths]
        parts = [files[i : i + info.max_images] for i in range(0, len(files), info.max_images)]

        def one(part: list[Path]) -> Embeddings:
            return self._vectors(info, self._send(self._file_call(part)), len(part))

        return _joined(list(self._in_flight(one, parts)), self.dim)

    def run(self, images: Images) -> Embeddings:
        """Embed crops at the model's size, (N, H, W, 3) uint8 BGR -> (N, D) float32.

        Raises:
            InputError, RunnerError: as :meth:`embed`.
        """
        step = self.info.max_images
        parts = [images[i : i + step] for i in range(0, len(images), step)]
        return _joined(list(self._in_flight(self._run_part, parts)), self.dim)

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Vectors of batch after batch, in order, the next ones on their way meanwhile."""
        return self._in_flight(self._run_part, batches)

    def ready(self) -> bool:
        """Whether the service wants requests; false where it does not answer."""
        try:
            return self._http.get("/v2/health/ready").status_code == 200
        except self._httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections; closing twice is allowed."""
        self._senders.shutdown()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run_part(self, images: Images) -> Embeddings:
        info = self.info
        if len(images) > info.max_images:
            step = info.max_images
            parts = [self._run_part(images[i : i + step]) for i in range(0, len(images), step)]
            return np.concatenate(parts)
        response = self._send(self._infer_call(info, images))
        return self._vectors(info, response, len(images))

    def _in_flight(
        self, function: Callable[[Any], Embeddings], parts: Iterable[Any]
    ) -> Iterator[Embeddings]:
        waiting: deque[Future[Embeddings]] = deque()
        try:
            for part in parts:
                waiting.append(self._senders.submit(function, part))
                if len(waiting) == self.connections:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _send(self, call: _Call) -> httpx.Response:
        until = time.monotonic() + self.timeout_s
        attempt = 0
        while True:
            error: Exception | None = None
            response: httpx.Response | None = None
            try:
                response = self._http.request(
                    call.method,
                    call.path,
                    content=None if call.files else call.content,
                    files=call.files,
                    headers=call.headers,
                    timeout=max(until - time.monotonic(), 0.001),
                )
                if response.status_code not in _AGAIN:
                    return self._checked(response)
            except self._httpx.TransportError as exc:
                error = exc
            pause_s = self._pause_s(attempt, response, until)
            if pause_s < 0:
                raise self._gave_up(error, response) from error
            time.sleep(pause_s)
            attempt += 1


class AsyncClient(_Common):
    """:class:`Client` for programs on asyncio.

    ::

        async with AsyncClient("http://127.0.0.1:8000") as client:
            vectors = await client.embed_boxes(frame, boxes)

    Args:
        url: of the service.
        model: name of one of its models; its first by default.
        key: for a service that wants one; ``SA_DEPLOY_KEY`` of the environment by default.
        timeout_s: for a request, with all its attempts.
        connections: requests in flight at most.

    Raises:
        InputError: not an address.
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
    ) -> None:
        super().__init__(url, model=model, key=key, timeout_s=timeout_s, connections=connections)
        self._http: httpx.AsyncClient = self._httpx.AsyncClient(**self._options)
        self._places = asyncio.Semaphore(connections)
        self._found: ServerInfo | None = None

    async def info(self) -> ServerInfo:
        """What the service says of the model, asked once.

        Raises:
            RunnerError: the service does not answer.
            InputError: it has no such model, or wants a key.
        """
        if self._found is None:
            listed = await self._send(_Call(method="GET", path="/models"))
            contract = await self._send(_Call(method="GET", path=self._question))
            self._found = self._info(listed, contract)
        return self._found

    async def embed(self, images: Sequence[Image] | Images) -> Embeddings:
        """Embed crops, each (H, W, 3) uint8 BGR of its own size -> (N, D) float32.

        Raises:
            InputError: a crop of another type or shape, or what the service refuses.
            RunnerError: the service does not answer, or failed.
        """
        return await self.run(_resized(images, (await self.info()).contract))

    async def embed_boxes(self, frame: Image, boxes_xyxy: ArrayLike) -> Embeddings:
        """Embed the boxes of one frame (H, W, 3) uint8 BGR -> (N, D) float32.

        Raises:
            InputError: a box that holds no pixel of the frame, or what the service refuses.
            RunnerError: the service does not answer, or failed.
        """
        spec = (await self.info()).contract.input
        return await self.run(crops.crop_batch(frame, boxes_xyxy, spec.height, spec.width))

    async def run(self, images: Images) -> Embeddings:
        """Embed crops at the model's size, (N, H, W, 3) uint8 BGR -> (N, D) float32.

        Raises:
            InputError, RunnerError: as :meth:`embed`.
        """
        info = await self.info()
        step = info.max_images

        async def one(part: Images) -> Embeddings:
            response = await self._send(self._infer_call(info, part))
            return self._vectors(info, response, len(part))

        parts = [images[i : i + step] for i in range(0, len(images), step)]
        return _joined(await asyncio.gather(*map(one, parts)), info.contract.output.dim)

    async def ready(self) -> bool:
        """Whether the service wants requests; false where it does not answer."""
        try:
            return (await self._http.get("/v2/health/ready")).status_code == 200
        except self._httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections; closing twice is allowed."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _send(self, call: _Call) -> httpx.Response:
        until = time.monotonic() + self.timeout_s
        attempt = 0
        while True:
            error: Exception | None = None
            response: httpx.Response | None = None
            try:
                async with self._places:
                    response = await self._http.request(
                        call.method,
                        call.path,
                        content=call.content,
                        headers=call.headers,
                        timeout=max(until - time.monotonic(), 0.001),
                    )
                if response.status_code not in _AGAIN:
                    return self._checked(response)
            except self._httpx.TransportError as exc:
                error = exc
            pause_s = self._pause_s(attempt, response, until)
            if pause_s < 0:
                raise self._gave_up(error, response) from error
            await asyncio.sleep(pause_s)
            attempt += 1


def _resized(images: Sequence[Image] | Images, contract: Contract) -> Images:
    spec = contract.input
    out = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    for index, image in enumerate(images):
        crops.check_image(image, f"crop {index}")
        crops.resize(image, spec.height, spec.width, out[index])
    return out


def _joined(parts: Sequence[Embeddings], dim: int) -> Embeddings:
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
