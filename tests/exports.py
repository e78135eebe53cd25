"""What the exports of a session have in common, made once: drawn people, traces of a network."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sa_export.deploy import DeployNetwork
    from sa_runtime.artefact.contract import Contract
    from tests.conftest import MadeOnce

LARGEST = 20_000_000
"""Bytes of a trace that is kept."""


@contextmanager
def parsed_once() -> Iterator[None]:
    """Torch parses the source of its ONNX operators before every export; once is enough here."""
    apis: Any = importlib.import_module("torch.onnx._internal._lazy_import").onnxscript_apis
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apis, "get_torchlib_ops", cache(apis.get_torchlib_ops))
        yield


@contextmanager
def drawn_once(made_once: MadeOnce) -> Iterator[None]:
    """The generated people that exports are judged on, at whatever size they are cut."""
    from sa_export import crop_sets
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

    def copied(root: Path, config: SyntheticConfig, *, workers: int) -> None:
        name = f"people-{config.seed}"
        made = made_once(name, lambda to: write_synthetic(to / "world", config, workers=workers))
        shutil.copytree(made / "world", root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop_sets, "write_synthetic", copied)
        yield


@contextmanager
def traced_once() -> Iterator[None]:
    """One trace for all the files that are made of a network; what tests traces makes its own."""
    import onnx

    from sa_export import artefacts
    from sa_export.onnx_file import onnx_from_network
    from sa_export.onnx_graph import write_contract

    kept: dict[str, bytes] = {}

    def traced(deployed: DeployNetwork, contract: Contract, **options: Any) -> onnx.ModelProto:
        key = _identity(deployed, contract, options)
        if key not in kept:
            data = onnx_from_network(deployed, contract, **options).SerializeToString()
            if len(data) > LARGEST:
                return onnx.load_from_string(data)
            kept[key] = data
        model = onnx.load_from_string(kept[key])
        write_contract(model, contract)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "onnx_from_network", traced)
        yield


def _identity(deployed: DeployNetwork, contract: Contract, options: dict[str, Any]) -> str:
    """A hash of all that a trace depends on."""
    import torch

    shape = (contract.input, contract.max_batch, contract.fixed_batch)
    digest = hashlib.sha256(repr((deployed.config, deployed.spec, shape, options)).encode())
    for name, tensor in deployed.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
