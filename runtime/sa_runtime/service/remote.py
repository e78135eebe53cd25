"""A service as a runner, so that what takes an open model takes a service too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Self

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.service.client import Client


class ServerRunner:
    """The model of a service; see :class:`sa_runtime.runners.base.Runner`.

    Args:
        client: of the service; closed with the runner.

    Attributes:
        path: address of the service and name of the model.
        label: what the rows of a run depend on.
    """

    name: ClassVar[str] = "server"

    def __init__(self, client: Client) -> None:
        self._client = client
        info = client.info
        self.contract: Contract = info.contract
        self.max_batch: int | None = info.crops_a_request
        self.path = f"{client.url} {info.name}"
        self.label = f"server {info.contract.precision}"

    def run(self, images: Images) -> Embeddings:
        """(N, H, W, 3) uint8 BGR -> (N, D) float32."""
        return self._client.run(images)

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Results of the batches in order, several on their way at a time."""
        return self._client.run_stream(batches)

    def close(self) -> None:
        """Close the connections; closing twice is allowed."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
