"""Checkpoints on torch, as they were trained: the reference that artefacts are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from sa_export.contracts import contract_of
from sa_export.deploy import DeployNetwork, GraphSpec
from sa_export.options import ExportOptions
from sa_export.runners.base import TorchRunner, require_threads
from sa_runtime.errors import bad_value
from sa_training.checkpoints import load_checkpoint
from sa_training.pixels import network_input

CheckpointPrecision = Literal["fp32", "bf16"]


class CheckpointRunner(TorchRunner):
    """A checkpoint of ``sa-deploy train`` or the authors', run eagerly.

    Any number of threads may call it, see :class:`TorchRunner`.

    Args:
        path: the ``.pt``, ``.pth`` or ``.tar`` file.
        embedding: ``parts``, ``global`` or ``reduced``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: see :class:`TorchRunner`.
        precision: ``fp32``, or ``bf16`` by autocast.
        channels_last: store maps with channels last, as fast convolutions want them.

    Raises:
        CheckpointError: the file cannot be loaded.
        InputError: an unknown embedding or precision, or a device this torch has not.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        path: Path,
        *,
        embedding: str | None = None,
        device: str = "cpu",
        threads: int = 0,
        precision: CheckpointPrecision = "fp32",
        channels_last: bool = False,
    ) -> None:
        if precision not in get_args(CheckpointPrecision):
            choices = ", ".join(get_args(CheckpointPrecision))
            raise bad_value("precision", precision, f"expected one of {choices}")
        require_threads(path)
        chosen = embedding or "parts"
        checkpoint = load_checkpoint(path)
        spec = GraphSpec(embeddings=(chosen,))
        contract = contract_of(
            checkpoint,
            DeployNetwork(checkpoint.network, spec),
            ExportOptions(embeddings=(chosen,)),
        )
        super().__init__(path, contract, device=device, threads=threads, precision=precision)
        network = checkpoint.network.to(self._device).eval()
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.details["channels_last"] = str(channels_last)

        def call(images_NHW3: Tensor) -> Tensor:
            x_N3HW = network_input(images_NHW3)
            if not channels_last:
                x_N3HW = x_N3HW.contiguous()
            lowered = precision == "bf16"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=lowered):
                return network.embed(x_N3HW, chosen)

        self._call = call
