"""What every runner is and the checks they share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.contract import Contract, InputSpec, Tensor, tensor_fault
from sa_runtime.artefact.external_data import check_weights
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import ContractError, InputError, RunnerError, bad_value
from sa_runtime.runners.calls import Calls

Options = dict[str, str | int | float | bool | None]
"""Keyword arguments of a runner."""


@runtime_checkable
class Runner(Protocol):
    """A model opened on one runtime, for any number of threads of the process that opened it."""

    name: ClassVar[str]
    contract: Contract
    max_batch: int | None

    def run(self, images: Images) -> Embeddings:
        """(N, H, W, 3) uint8 BGR -> (N, D) float32; N may be 0 or larger than ``max_batch``.

        Any thread may call it at any time; the array must not change before it returns.
        """

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Results of the batches in order; a runner may overlap them.

        A batch's array may be overwritten when its result has been yielded, not before. Any number
        of streams may be open at once, each iterated by one thread at a time.
        """

    def close(self) -> None:
        """Free the model and its device memory; closing twice is allowed.

        Calls in flight in other threads finish first; later ones, and the next batch of a stream,
        raise RunnerError.
        """


class BaseRunner(ABC):
    """Shape checks, splitting and the life cycle; a runtime adds :meth:`_infer`.

    Every method may be called from any thread, as :class:`Runner` says; a runtime makes
    :meth:`_infer` so. A process that is forked from the one that opened it must open its own.

    Args:
        path: the artefact.
        contract: read from it.
        precision: what the runtime computes in; the artefact's own by default.

    Attributes:
        device: what it runs on.
        details: further settings that explain a measurement, for people and for logs.
        reason: why this runtime was taken, where ``auto`` chose it.
    """

    name: ClassVar[str] = "base"

    def __init__(self, path: Path, contract: Contract, *, precision: str | None = None) -> None:
        self.path = path
        self.contract = contract
        self.max_batch = contract.max_batch
        self.precision: str = precision or contract.precision
        self.device = "cpu"
        self.details: dict[str, str] = {}
        self.reason = ""
        self._calls = Calls(f"{path.name}: the runner")

    @classmethod
    def variants(cls, path: Path) -> tuple[Options, ...]:
        """Option sets worth measuring on this machine, the artefact's own precision first.

        Raises:
            MissingPackageError: the runtime is not installed.
        """
        return ({},)

    @property
    def label(self) -> str:
        """Runtime and precision, as tables and plots call it."""
        return f"{self.name} {self.precision}"

    @property
    def identity(self) -> str:
        """:attr:`label`, and the device where it is not the processor: tells two runners apart."""
        kind = self.device_kind
        return self.label if kind == "cpu" else f"{self.label} on {kind}"

    @property
    def device_kind(self) -> str:
        """The device without its number: another card of the same kind is no other runner."""
        return re.split(r"[:.]", self.device.lower())[0]

    @abstractmethod
    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        """One batch within ``max_batch`` in the contract's own layout -> (N, D).

        Several threads are in it at once; what it returns is overwritten by none of them.
        """

    def _release(self) -> None:  # noqa: B027 (optional hook)
        """Free what the runtime holds."""

    def run(self, images: Images) -> Embeddings:
        """Embed a batch.

        Args:
            images: (N, H, W, 3) uint8 BGR at the contract's size. N = 0 gives (0, D); a batch
                larger than ``max_batch`` is split.

        Raises:
            InputError: another shape or type.
            RunnerError: the runtime failed, or gave vectors that are not finite; the runner is
                closed, or was opened by the process that this one was forked from.
        """
        with self._calls:
            self.check(images)
            count = len(images)
            if count == 0:
                return np.zeros((0, self.contract.output.dim), np.float32)
            step = self.max_batch or count
            parts = [self._infer_batch(images[i : i + step]) for i in range(0, count, step)]
            output = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return self._checked(output, count)

    def _infer_batch(self, images: Images) -> NDArray[np.generic]:
        """One batch within ``max_batch``."""
        return self._infer(self._encode(self._filled(images)))[: len(images)]

    def _filled(self, images: Images) -> Images:
        """The batch, repeated to the full size where the artefact takes no other."""
        missing = (self.max_batch or 0) - len(images)
        if self.contract.fixed_batch and missing > 0:
            return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        return images

    def run_stream(self, batches: Iterable[Images]) -> Iterator[Embeddings]:
        """Embed batch after batch; runtimes that can overlap them replace this."""
        for images in batches:
            yield self.run(images)

    def close(self) -> None:
        """Free the model; closing twice is allowed.

        Waits for the calls that other threads are in. A stream is in a call while it computes, not
        while its caller has its last result: it ends with a RunnerError at its next batch.

        Raises:
            RunnerError: called inside a call of the same thread, as a signal handler may.
        """
        self._calls.close(self._release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check(self, images: Images) -> None:
        """Raise InputError unless ``images`` is what the contract takes."""
        spec = self.contract.input
        expected = (spec.height, spec.width, 3)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise InputError(
                f"{self.path.name}: images of shape {images.shape} {images.dtype}, expected "
                f"(N, {spec.height}, {spec.width}, 3) uint8 BGR; cut crops with sa_runtime.crops"
            )

    def _check_graph(self, found: Mapping[str, Tensor]) -> None:
        """Raise ContractError where the graph's tensors are not those of the contract.

        Args:
            found: type and shape, without the batch, of the graph's inputs and outputs; a size
                that is no integer is dynamic and fits any.
        """
        stated = self.contract.tensors()
        for name in (self.contract.input.name, self.contract.output.name):
            if fault := tensor_fault(stated[name], found.get(name)):
                raise ContractError(
                    f"{self.path}: {name} {fault}; the file was changed after export, export it "
                    "again"
                )

    def _encode(self, images: Images) -> NDArray[np.generic]:
        """Images -> the input the contract describes."""
        return encode(images, self.contract.input)

    def _checked(self, output: NDArray[np.generic], count: int) -> Embeddings:
        expected = (count, self.contract.output.dim)
        if output.shape != expected:
            raise RunnerError(
                f"{self.path.name}: {self.name} gave {output.shape}, expected {expected}"
            )
        vectors = output.astype(np.float32, copy=False)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise RunnerError(
                f"{self.path.name}: {self.name} gave a vector that is not finite (row {row}); "
                "export the model again at a higher precision"
            )
        return vectors


def encode(images: Images, spec: InputSpec) -> NDArray[np.generic]:
    """(N, H, W, 3) uint8 BGR -> the input that a contract describes."""
    if spec.colour == "rgb":
        images = images[..., ::-1]
    encoded: NDArray[np.generic] = images
    if spec.dtype == "float32":
        values: NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
        if spec.mean is not None and spec.std is not None:
            values -= np.array(spec.mean, np.float32)
            values /= np.array(spec.std, np.float32)
        encoded = values
    if spec.layout == "nchw":
        encoded = encoded.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(encoded)


def fitting_batch_size(runner: Runner, batch_size: int) -> int:
    """The batch size to form for a runner: at most what it takes, all of it if that is fixed.

    Raises:
        InputError: a batch size below 1.
    """
    if batch_size < 1:
        raise bad_value("batch_size", batch_size, "expected at least 1")
    if runner.contract.fixed_batch and runner.max_batch is not None:
        return runner.max_batch
    return min(batch_size, runner.max_batch or batch_size)


def contract_for(path: Path, embedding: str | None) -> Contract:
    """The contract of an artefact, with one of its embeddings selected where it holds several.

    The weights that it keeps in other files are checked as well.

    Raises:
        InputError: not an artefact, or one whose weights are missing or outside its folder.
        ContractError: no readable contract, no such embedding, or other weights than it was
            written with.
    """
    contract = read_contract(path)
    check_weights(path)
    if embedding is None:
        return contract
    try:
        return contract.select(embedding)
    except ContractError as exc:
        raise ContractError(f"{path}: {exc}") from exc
