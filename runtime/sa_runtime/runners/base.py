"""What every runner is and the checks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sa_runtime.contract import Contract
from sa_runtime.errors import InputError, RunnerError

Images = NDArray[np.uint8]
"""(N, H, W, 3) uint8 BGR, H x W of the contract, as :mod:`sa_runtime.crops` makes them."""
Embeddings = NDArray[np.float32]
"""(N, D) float32, rows of unit length."""


@runtime_checkable
class Runner(Protocol):
    """A model opened on one runtime."""

    name: str
    contract: Contract
    max_batch: int | None

    def run(self, images: Images) -> Embeddings:
        """(N, H, W, 3) uint8 BGR -> (N, D) float32; N may be 0 or larger than ``max_batch``."""

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Results of the batches in order; a runner may overlap them."""

    def close(self) -> None:
        """Free the model and its device memory; closing twice is allowed."""


class BaseRunner(ABC):
    """Shape checks, splitting and the life cycle; a runtime adds :meth:`_infer`.

    Args:
        path: the artefact.
        contract: read from it.
    """

    name = "base"

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path = path
        self.contract = contract
        self.max_batch = contract.max_batch
        self._closed = False

    @abstractmethod
    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        """One batch within ``max_batch`` in the contract's own layout -> (N, D)."""

    def _release(self) -> None:  # noqa: B027 (optional hook)
        """Free what the runtime holds."""

    def run(self, images: Images) -> Embeddings:
        """Embed a batch.

        Args:
            images: (N, H, W, 3) uint8 BGR at the contract's size. N = 0 gives (0, D); a batch
                larger than ``max_batch`` is split.

        Raises:
            InputError: another shape or type.
            RunnerError: the runtime failed, or gave vectors that are not finite.
        """
        self.check(images)
        count = len(images)
        if count == 0:
            return np.zeros((0, self.contract.output.dim), np.float32)
        step = self.max_batch or count
        parts = [self._infer_batch(images[i : i + step]) for i in range(0, count, step)]
        output = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._checked(output, count)

    def _infer_batch(self, images: Images) -> NDArray[np.generic]:
        """One batch within ``max_batch``; an artefact of a fixed batch gets it filled up."""
        count = len(images)
        if self.contract.fixed_batch and self.max_batch is not None and count < self.max_batch:
            filler = np.repeat(images[-1:], self.max_batch - count, axis=0)
            images = np.concatenate([images, filler])
        return self._infer(self._encode(images))[:count]

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Embed batch after batch; runtimes that can overlap them replace this."""
        for images in batches:
            yield self.run(images)

    def close(self) -> None:
        """Free the model; closing twice is allowed."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self, images: Images) -> None:
        """Raise InputError unless ``images`` is what the contract takes."""
        if self._closed:
            raise RunnerError(f"{self.path.name}: the runner is closed; open the model again")
        spec = self.contract.input
        expected = (spec.height, spec.width, 3)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise InputError(
                f"{self.path.name}: images of shape {images.shape} {images.dtype}, expected "
                f"(N, {spec.height}, {spec.width}, 3) uint8 BGR; cut crops with sa_runtime.crops"
            )

    def _encode(self, images: Images) -> NDArray[np.generic]:
        """Images -> the input the contract describes."""
        spec = self.contract.input
        if spec.colour == "rgb":
            images = images[..., ::-1]
        encoded: NDArray[np.generic] = images
        if spec.dtype == "float32":
            values = images.astype(np.float32) / np.float32(255)
            if spec.mean is not None and spec.std is not None:
                values = (values - np.float32(spec.mean)) / np.float32(spec.std)
            encoded = values
        if spec.layout == "nchw":
            encoded = encoded.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(encoded)

    def _checked(self, output: NDArray[np.generic], count: int) -> Embeddings:
        expected = (count, self.contract.output.dim)
        if output.shape != expected:
            raise RunnerError(f"{self.path.name}: {self.name} gave {output.shape}, expected {expected}")
        vectors = output.astype(np.float32, copy=False)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise RunnerError(
                f"{self.path.name}: {self.name} gave a vector that is not finite (row {row}); "
                "export the model again at a higher precision"
            )
        return vectors
