"""The client of a service for programs on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images
from sa_runtime.service.asking import Call, Common, ServerInfo
from sa_runtime.service.attempts import Attempts
from sa_runtime.service.parts import joined, resized

if TYPE_CHECKING:
    import httpx


class AsyncClient(Common):
    """:class:`Client` for programs on asyncio.

    ::

        async with AsyncClient("http://127.0.0.1:8000") as client:
            vectors = await client.embed_boxes(frame, boxes)

    It belongs to one event loop: tasks of that loop may share it, other threads have their own.

    What it is made of is said at :class:`sa_runtime.service.asking.Common`.
    """

    def _open(self, options: dict[str, Any]) -> None:
        self._http: httpx.AsyncClient = self._httpx.AsyncClient(**options)
        self._places = asyncio.Semaphore(self.connections)

    async def info(self) -> ServerInfo:
        """What the service says of the model, asked once.

        Raises:
            RunnerError: the service does not answer.
            InputError: it has no such model, or wants a key.
        """
        if self._found is None:
            listed = await self._send(Call(method="GET", path="/models"))
            contract = await self._send(Call(method="GET", path=self._question))
            self._found = self._info_of(listed, contract)
        return self._found

    async def embed(self, images: Sequence[Image] | Images) -> Embeddings:
        """Embed crops, each (H, W, 3) uint8 BGR of its own size -> (N, D) float32.

        Raises:
            InputError: a crop of another type or shape, or what the service refuses.
            RunnerError: the service does not answer, or failed.
        """
        return await self.run(resized(images, (await self.info()).contract))

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
        step = info.crops_a_request

        async def one(part: Images) -> Embeddings:
            response = await self._send(self._infer_call(info, part))
            return self._vectors(info, response, len(part))

        parts = [images[i : i + step] for i in range(0, len(images), step)]
        return joined(await asyncio.gather(*map(one, parts)), info.contract.output.dim)

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

    async def _send(self, call: Call) -> httpx.Response:
        async with self._places:
            attempts = Attempts(self._patience)  # its time begins when it is its turn
            while True:
                outcome: httpx.Response | Exception
                try:
                    outcome = await self._http.request(**call.words(*attempts.left_s))
                except self._httpx.TransportError as exc:
                    outcome = exc
                if (pause_s := attempts.pause_s(outcome)) is None:
                    return self._checked(outcome)
                await asyncio.sleep(pause_s)
