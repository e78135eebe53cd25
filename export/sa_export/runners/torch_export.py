"""Programs of :mod:`torch.export` on torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import torch

from sa_export.runners.base import TorchRunner
from sa_runtime.errors import RunnerError
from sa_runtime.runners.base import contract_for


class TorchExportRunner(TorchRunner):
    """A ``.pt2`` artefact.

    Any number of threads may call it, see :class:`TorchRunner`.

    Args:
        path: the file.
        embedding: which of the artefact's embeddings; its first by default.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: see :class:`TorchRunner`.

    Raises:
        InputError: a file of another format, or a device this torch has not.
        RunnerError: the file cannot be loaded.
        ContractError: it carries no contract.
    """

    name: ClassVar[str] = "torch-export"

    def __init__(
        self, path: Path, *, embedding: str | None = None, device: str = "cpu", threads: int = 0
    ) -> None:
        super().__init__(path, contract_for(path, embedding), device=device, threads=threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path)
                self._call = program.module().to(self._device)
        except Exception as exc:  # a torn archive raises anything, from zip errors to KeyError
            raise RunnerError(f"{path}: torch cannot load it: {exc}") from exc
