"""The tiny network in every format, and what it computes.

A test module takes the fixtures with ``pytest_plugins = ("tests.tiny_artefacts",)``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.canary import CANARY_KEY, make_canary
from sa_runtime.artefact.contract import METADATA_KEY
from tests.conftest import MadeOnce

MAX_BATCH = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyArtefacts:
    """Files of one checkpoint by format, and its network as the reference."""

    files: dict[str, Path]
    network: Any

    def crops(self, count: int, seed: int = 0) -> Images:
        """(N, 128, 64, 3) uint8: blocks of colour, which differ more than noise does."""
        rng = np.random.default_rng(seed)
        blocks: Images = rng.integers(0, 256, (count, 8, 4, 3), dtype=np.uint8)
        return blocks.repeat(16, axis=1).repeat(16, axis=2)

    def embed(self, images: Images) -> Embeddings:
        """(N, H, W, 3) uint8 BGR -> (N, 1536) float32 by the network in torch, one by one."""
        import torch

        from sa_training.pixels import network_input

        with torch.inference_mode():
            rows = [
                self.network.embed(network_input(torch.from_numpy(images[i : i + 1]))).numpy()
                for i in range(len(images))
            ]
        return np.concatenate(rows) if rows else np.zeros((0, 1536), np.float32)


FILES = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "torchscript": "model.torchscript",
    "torch-export": "model.pt2",
    "fixed": "fixed.onnx",
    "bf16": "model.bf16.onnx",
    "canary": "canary.onnx",
}


@pytest.fixture(scope="session")
def tiny_artefacts(
    tiny_checkpoint: Path, made_once: MadeOnce, request: pytest.FixtureRequest
) -> TinyArtefacts:
    """By format, and ``torch``, the checkpoint itself; ``bf16``, ``fixed`` and ``canary`` are ONNX.

    Batches of at most 4, except the checkpoint; ``fixed`` takes 4 exactly, ``canary`` holds crops.
    """
    from sa_training.checkpoints import load_checkpoint

    def fill(folder: Path) -> None:
        request.getfixturevalue("exports_share")
        _write(tiny_checkpoint, folder)

    folder = made_once("artefacts", fill)
    return TinyArtefacts(
        files={"torch": tiny_checkpoint, **{kind: folder / file for kind, file in FILES.items()}},
        network=load_checkpoint(tiny_checkpoint).network,
    )


def _write(tiny_checkpoint: Path, folder: Path) -> None:
    import onnx

    from sa_export.contracts import contract_of
    from sa_export.deploy import DeployNetwork, GraphSpec
    from sa_export.onnx_file import BF16_OPSET, onnx_from_network
    from sa_export.onnx_graph import OnnxWriter, inlined
    from sa_export.openvino_file import OpenVinoWriter
    from sa_export.options import ExportOptions
    from sa_export.torch_files import TorchExportWriter, TorchScriptWriter
    from sa_training.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(tiny_checkpoint)
    deployed = DeployNetwork(checkpoint.network, GraphSpec())
    exact = contract_of(checkpoint, deployed, ExportOptions())
    contract = dataclasses.replace(exact, max_batch=MAX_BATCH)
    half_contract = dataclasses.replace(contract, precision="bf16")
    half = DeployNetwork(checkpoint.network, GraphSpec(compute="bf16"))
    model = onnx_from_network(deployed, contract)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = MAX_BATCH
    written: dict[str, tuple[Any, Any]] = {
        "onnx": (OnnxWriter(model), contract),
        "openvino": (OpenVinoWriter(inlined(model), half=False), contract),
        "torchscript": (TorchScriptWriter(deployed, contract), contract),
        "torch-export": (TorchExportWriter(deployed, exact), contract),
        "fixed": (OnnxWriter(fixed), dataclasses.replace(contract, fixed_batch=True)),
        "bf16": (
            OnnxWriter(onnx_from_network(half, half_contract, opset=BF16_OPSET)),
            half_contract,
        ),
    }
    for kind, (write, stated) in written.items():
        write({METADATA_KEY: stated.to_json()}, folder / FILES[kind])
    made = TinyArtefacts(files={}, network=checkpoint.network)
    images = made.crops(3, seed=7)
    model = onnx.load(folder / FILES["onnx"])
    model.metadata_props.add(key=CANARY_KEY, value=make_canary(images, made.embed(images)))
    onnx.save(model, folder / FILES["canary"])
