"""TorchScript files and checkpoints of others as contenders of ``bench``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sa_export.families.base import Network
from sa_export.families.libraries import TIMM, TORCHVISION
from sa_export.foreign import ModelHints
from sa_export.foreign_torch import checkpoint, torchscript_network
from sa_export.foreign_weights import is_torchscript
from sa_export.look_torch import is_own, network_flops
from sa_export.raw_files import raw_contract
from sa_export.torch_files import TorchScriptWriter
from sa_runtime.artefact.contract import METADATA_KEY, RAW, Contract, InputSpec, OutputSpec

_LIBRARIES = {"timm": TIMM, "torchvision": TORCHVISION}


class _Rows(nn.Module):
    """A network whose vectors are rows, whatever it gives beside them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self._index = network.index

    def forward(self, x_N3HW: Tensor) -> Tensor:
        output = self.module(x_N3HW)
        vectors: Tensor = output if self._index is None else output[self._index]
        return vectors.flatten(1).float()


def contender(path: Path, folder: Path, size: tuple[int, int], known: Sequence[Contract]) -> Path:
    """A file as a TorchScript copy with a contract; a checkpoint of sa-deploy as it is.

    Args:
        path: TorchScript, or a checkpoint.
        folder: for the copy.
        size: height and width of its crops, which neither of them tells.
        known: contracts of the models beside it: what was adopted from this file says its
            architecture.

    Raises:
        CheckpointError: weights of no network that is known.
        InputError: a file of several outputs.
        RunnerError: it fails at this size.
    """
    script = is_torchscript(path)
    if not script and is_own(path):
        return path
    height, width = size
    hints = ModelHints(height=height, width=width)
    if not script:
        hints = dataclasses.replace(hints, **_named(path, known))
    network = (torchscript_network if script else checkpoint)(path, hints)
    with torch.inference_mode():
        dim = _Rows(network)(torch.zeros(1, 3, height, width)).shape[1]
    contract = raw_contract(
        InputSpec(height=height, width=width),
        OutputSpec(embedding=RAW, dim=dim),
        flops=network_flops(network),
    )
    folder.mkdir()
    copy = folder / (path.name if path.suffix == ".torchscript" else f"{path.name}.torchscript")
    TorchScriptWriter(_Rows(network), contract)({METADATA_KEY: contract.to_json()}, copy)
    return copy


def _named(path: Path, known: Sequence[Contract]) -> dict[str, Any]:
    """The architecture that an artefact says it was adopted with, from a file of this name."""
    for contract in known:
        said = contract.network
        if said.get("adopted_from") != path.name or "architecture" not in said:
            continue
        if said["family"] == "a factory":
            return {"factory": said["architecture"]}
        if said["family"] in _LIBRARIES:
            return {"arch": f"{_LIBRARIES[said['family']]}{said['architecture']}"}
    return {}
