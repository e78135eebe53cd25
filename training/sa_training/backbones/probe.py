"""A pass through a network that says what it is made of: sizes, strides, what gave each map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_POSITIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
"""Activations that give no negative value."""
_LAST_STRIDE = 16
"""The stride that person re-identification ends with (Luo et al., arXiv 1903.07071)."""


class Probe:
    """One pass of an image of zeros, in evaluation mode, without gradients.

    Args:
        network: run, not changed.
        height, width: of the image.
        run: how it is run; the network itself by default.

    Attributes:
        output: what it returned.
        calls: leaf modules in the order of their calls, with the size of what they read.
    """

    def __init__(
        self,
        network: nn.Module,
        height: int,
        width: int,
        run: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.calls: list[tuple[nn.Module, torch.Size]] = []
        self._read: list[tuple[nn.Module, Tensor]] = []
        self._gave: list[tuple[nn.Module, Tensor]] = []

        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                self.calls.append((module, inputs[0].shape))
                self._read.append((module, inputs[0]))
                self._gave.append((module, output))

        leaves = [m for m in network.modules() if not any(True for _ in m.children())]
        # A batch norm that holds its own activation is read and written as one.
        hooked = [*leaves, *(m for m in network.modules() if _norm_with_activation(m))]
        hooks = [module.register_forward_hook(note) for module in hooked]
        image = torch.zeros(1, 3, height, width, device=_device(network))
        try:
            with _evaluated(network), torch.no_grad():
                self.image = image
                self.output = (run or network)(image)
        finally:
            for hook in hooks:
                hook.remove()

    def positive(self, output: Tensor) -> bool:
        """Whether an activation without negative values gave a tensor."""
        return any(isinstance(m, _POSITIVE) for m, given in self._gave if given is output)

    def folded(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions and the batch norms that alone read what they give."""
        for conv, given in self._gave:
            readers = [module for module, read in self._read if read is given]
            if isinstance(conv, nn.Conv2d) and len(readers) == 1:
                (reader,) = readers
                if isinstance(reader, nn.BatchNorm2d):
                    yield conv, reader

    def first(self) -> nn.Conv2d | None:
        """The convolution that alone reads the image."""
        readers = [module for module, read in self._read if read is self.image]
        if len(readers) == 1 and isinstance(readers[0], nn.Conv2d):
            return readers[0]
        return None


def set_last_stride(network: nn.Module, probe: Probe, height: int, width: int) -> None:
    """Let what halves the map of stride 16 keep its size, where its kernel allows that."""
    sizes = {
        (how(height / _LAST_STRIDE), how(width / _LAST_STRIDE)) for how in (math.ceil, math.floor)
    }
    for module, shape in probe.calls:
        if len(shape) != 4 or tuple(shape[2:]) not in sizes:
            continue
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            pairs = zip(module.kernel_size, module.padding, strict=False)
            if isinstance(module.padding, tuple) and all(k == 2 * p + 1 for k, p in pairs):  # type: ignore[operator]
                module.stride = (1, 1)
        elif isinstance(module, nn.AvgPool2d | nn.MaxPool2d) and _pair(module.stride) == _pair(
            module.kernel_size
        ) == (2, 2):
            module.kernel_size = module.stride = 1


def map_stride(size: int, map_size: int) -> int:
    """The power of two that a map's stride is, of an input's and the map's rows.

    >>> map_stride(100, 13), map_stride(160, 10)
    (8, 16)
    """
    return int(2 ** round(math.log2(size / map_size)))


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _norm_with_activation(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and any(True for _ in module.children())


def _device(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """In evaluation mode, and back to the mode of each module."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
