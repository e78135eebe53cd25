"""What the torch runners share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import RunnerError, bad_value
from sa_runtime.runners.base import BaseRunner

_computed: set[int] = set()
"""Processes in which torch's threads computed for a runner: this one, or those it is a fork of."""


class TorchRunner(BaseRunner):
    """A function of torch tensors as a runner.

    Any number of threads may call it: torch keeps no state between two calls, and its modes, such
    as inference mode, are those of one thread.

    Args:
        path: the artefact.
        contract: read from it.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of this process's torch, 0 to leave them as they are; they are a global of torch.
        precision: as :class:`BaseRunner` takes it.

    Raises:
        InputError: a device this torch has not.
        RunnerError: torch computed before this process was forked, and would wait for its threads.
    """

    def __init__(
        self,
        path: Path,
        contract: Contract,
        *,
        device: str = "cpu",
        threads: int = 0,
        precision: str | None = None,
    ) -> None:
        require_threads(path)
        super().__init__(path, contract, precision=precision)
        self._device = torch_device(device)
        if threads:
            torch.set_num_threads(threads)
        self.device = device
        self.details = {"version": torch.__version__, "threads": str(torch.get_num_threads())}
        self._call: Callable[[Tensor], object] | None = None

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        assert self._call is not None
        if torch.get_num_threads() > 1:
            _computed.add(os.getpid())
        if not inputs.flags.writeable:  # torch would warn: it knows no read-only tensors
            inputs = inputs.copy()
        try:
            with torch.inference_mode():
                output = self._call(torch.from_numpy(inputs).to(self._device))
        except (RuntimeError, AssertionError) as exc:  # a failed shape guard of torch.export
            raise RunnerError(f"{self.path}: torch failed on {inputs.shape}: {exc}") from exc
        chosen = output[self.contract.output.index] if isinstance(output, tuple) else output
        assert isinstance(chosen, Tensor)
        array: NDArray[np.generic] = chosen.float().cpu().numpy()
        return array

    def _release(self) -> None:
        self._call = None


def require_threads(path: Path) -> None:
    """Refuse to open a model where torch's threads stayed behind in a parent process.

    Its OpenMP keeps a list of threads that are not here, and the first operation that it shares
    among them never ends.

    Raises:
        RunnerError: that is so.
    """
    if parents := _computed - {os.getpid()}:
        raise RunnerError(
            f"{path}: torch computed in process {min(parents)} before this one "
            f"({os.getpid()}) was forked from it, and its threads are not here; start processes "
            "with multiprocessing's 'spawn', fork before a model is used, or set OMP_NUM_THREADS=1"
        )


def torch_device(name: str) -> torch.device:
    """A device by name.

    Raises:
        InputError: unknown, or not on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise bad_value("device", name, "expected cpu, cuda or cuda:N") from exc
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise bad_value("device", name, f"torch sees {torch.cuda.device_count()} CUDA devices")
    return device
