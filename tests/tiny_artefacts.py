"""The tiny network in every format, and what it computes.

A test module takes the fixtures with ``pytest_plugins = ("tests.tiny_artefacts",)``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sa_runtime.canary import CANARY_KEY, make_canary
from sa_runtime.contract import METADATA_KEY
from sa_runtime.runners.base import Embeddings, Images

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


@pytest.fixture(scope="session")
def tiny_artefacts(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> TinyArtefacts:
    """By format, and ``torch``, the checkpoint itself; ``bf16``, ``fixed`` and ``canary`` are ONNX.

    Batches of at most 4, except the checkpoint; ``fixed`` takes 4 exactly, ``canary`` holds crops.
    """
    import onnx
    import onnx.inliner

    from sa_export.contracts import contract_of
    from sa_export.deploy import Border, DeployNetwork
    from sa_export.onnx_file import BF16_OPSET, onnx_from_network
    from sa_export.onnx_graph import OnnxWriter
    from sa_export.openvino_file import OpenVinoWriter
    from sa_export.options import ExportOptions
    from sa_export.torch_files import TorchExportWriter, TorchScriptWriter
    from sa_training.checkpoints import load_checkpoint

    folder = tmp_path_factory.mktemp("artefacts")
    checkpoint = load_checkpoint(tiny_checkpoint)
    deployed = DeployNetwork(checkpoint.network, Border())
    exact = contract_of(checkpoint, deployed, ExportOptions())
    contract = dataclasses.replace(exact, max_batch=MAX_BATCH)
    half_contract = dataclasses.replace(contract, precision="bf16")
    half = DeployNetwork(checkpoint.network, Border(compute="bf16"))
    model = onnx_from_network(deployed, contract)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = MAX_BATCH
    written: dict[str, tuple[Any, Any, str]] = {
        "onnx": (OnnxWriter(model), contract, "model.onnx"),
        "openvino": (
            OpenVinoWriter(onnx.inliner.inline_local_functions(model), half=False),
            contract,
            "model.xml",
        ),
        "torchscript": (TorchScriptWriter(deployed, contract), contract, "model.torchscript"),
        "torch-export": (TorchExportWriter(deployed, exact), contract, "model.pt2"),
        "fixed": (
            OnnxWriter(fixed),
            dataclasses.replace(contract, fixed_batch=True),
            "fixed.onnx",
        ),
        "bf16": (
            OnnxWriter(onnx_from_network(half, half_contract, opset=BF16_OPSET)),
            half_contract,
            "model.bf16.onnx",
        ),
    }
    files = {"torch": tiny_checkpoint}
    for name, (write, stated, file) in written.items():
        write({METADATA_KEY: stated.to_json()}, folder / file)
        files[name] = folder / file
    made = TinyArtefacts(files=files, network=checkpoint.network)
    images = made.crops(3, seed=7)
    model = onnx.load(files["onnx"])
    model.metadata_props.add(key=CANARY_KEY, value=make_canary(images, made.embed(images)))
    files["canary"] = folder / "canary.onnx"
    onnx.save(model, files["canary"])
    return made
