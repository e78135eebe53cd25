"""Vectors from a service: retries where it is busy, no more in flight than it takes."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import RunnerError
from sa_runtime.service.asking import Call, Common, ServerInfo
from sa_runtime.service.attempts import Attempts
from sa_runtime.service.parts import joined, parts_of, resized

if TYPE_CHECKING:
    import httpx


class Client(Common):
    """The embedder of a service that ``sa-deploy serve`` runs.

    ::

        with Client("http://127.0.0.1:8000") as client:
            vectors = client.embed_boxes(frame, boxes)   # (N, D) float32, rows of unit length

    Crops are cut and resized here, by the same code as everywhere, and travel as bytes; what is
    more than a request takes is sent in several, ``connections`` of them at a time. A service that
    is busy is asked again when it says, and one that is away, until ``timeout_s`` is over. Any
    thread may call it.

    What it is made of is said at :class:`sa_runtime.service.asking.Common`.
    """

    def _open(self, options: dict[str, Any]) -> None:
        self._http: httpx.Client = self._httpx.Client(**options)
        self._senders = ThreadPoolExecutor(self.connections, thread_name_prefix="sa-client")
        self._closed = threading.Event()
        self._sockets: WeakSet[socket.socket] = WeakSet()

    @property
    def info(self) -> ServerInfo:
        """What the service says of the model, asked once.

        Raises:
            RunnerError: the service does not answer.
            InputError: it has no such model, or wants a key.
        """
        if self._found is None:
            listed = self._send(Call(method="GET", path="/models"))
            contract = self._send(Call(method="GET", path=self._question))
            self._found = self._info_of(listed, contract)
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
        return self.run(resized(images, self.contract))

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
        parts = parts_of([Path(path) for path in paths], info)

        def one(part: list[Path]) -> Embeddings:
            return self._vectors(info, self._send(self._file_call(part)), len(part))

        return joined(list(self._in_flight(one, parts)), self.dim)

    def run(self, images: Images) -> Embeddings:
        """Embed crops at the model's size, (N, H, W, 3) uint8 BGR -> (N, D) float32.

        Raises:
            InputError, RunnerError: as :meth:`embed`.
        """
        step = self.info.crops_a_request
        parts = [images[i : i + step] for i in range(0, len(images), step)]
        return joined(list(self._in_flight(self._run_part, parts)), self.dim)

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
        """Close the connections; closing twice is allowed.

        Requests in flight are given up, those of other threads too.
        """
        self._closed.set()
        for one in list(self._sockets):
            with suppress(OSError):  # closed by the service
                one.shutdown(socket.SHUT_RDWR)  # whoever waits there is waked
        self._senders.shutdown(cancel_futures=True)
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run_part(self, images: Images) -> Embeddings:
        info = self.info
        if len(images) > info.crops_a_request:
            step = info.crops_a_request
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

    def _send(self, call: Call) -> httpx.Response:
        attempts = Attempts(self._patience)
        while True:
            outcome: httpx.Response | Exception
            try:
                outcome = self._http.request(
                    **call.words(*attempts.left_s), extensions={"trace": self._note_socket}
                )
            except self._httpx.TransportError as exc:
                outcome = exc
            if (pause_s := attempts.pause_s(outcome)) is None:
                return self._checked(outcome)
            if self._closed.wait(pause_s):
                raise RunnerError(f"{self.url}: the client was closed before an answer came")

    def _note_socket(self, event: str, info: dict[str, Any]) -> None:
        """Called by httpx in every step of a request."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.add(info["return_value"].get_extra_info("socket"))
