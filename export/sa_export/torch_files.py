"""TorchScript and torch.export files: plain operations only, the contract as an extra file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sa_export.lowering import plain_pool
from sa_export.onnx_file import dynamic_shapes, example_input
from sa_runtime.artefact.contract import Contract
from sa_training.attention_pool import lowered_to


class TorchScriptWriter:
    """A deployed network as TorchScript, which libtorch loads without this package.

    Args:
        network: from crops to unit vectors.
        contract: says what goes in.
    """

    def __init__(self, network: nn.Module, contract: Contract) -> None:
        with lowered_to(plain_pool), warnings.catch_warnings(), torch.inference_mode():
            # torch calls TorchScript deprecated; it is what C++ programs on libtorch load.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                network.eval(), (example_input(contract),), check_trace=False
            )
            self._module = torch.jit.freeze(traced)

    def __call__(self, metadata: Mapping[str, str], path: Path) -> None:
        """Write the file with these entries as extra files."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            extra = {key: value.encode() for key, value in metadata.items()}
            torch.jit.save(self._module, str(path), _extra_files=extra)


class TorchExportWriter:
    """A deployed network as :mod:`torch.export` program (``.pt2``).

    Args:
        network: from crops to unit vectors.
        contract: says what goes in.
    """

    def __init__(self, network: nn.Module, contract: Contract) -> None:
        with lowered_to(plain_pool), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            self._program = torch.export.export(
                network.eval(), (example_input(contract),), dynamic_shapes=dynamic_shapes(contract)
            )

    def __call__(self, metadata: Mapping[str, str], path: Path) -> None:
        """Write the file with these entries as extra files."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(self._program, path, extra_files=dict(metadata))
