"""From a checkpoint to artefacts on disk, each checked before it gets its name."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path

from sa_export.deploy import DeployNetwork
from sa_export.onnx_file import DEFAULT_OPSET, onnx_from_network
from sa_export.parity import Parity, measure_parity, network_embed, require_parity
from sa_runtime.contract import Contract, InputSpec, OutputSpec, space_id
from sa_runtime.files import atomic_path
from sa_runtime.runners.base import Images
from sa_runtime.runners.table import open_runner
from sa_training.checkpoints import Checkpoint, weights_sha256

MIN_COSINE_FP32 = 0.99999


def contract_of(checkpoint: Checkpoint, embedding: str) -> Contract:
    """The contract of a checkpoint's FP32 artefacts."""
    config = checkpoint.network.config
    weights = weights_sha256(checkpoint.network)
    return Contract(
        input=InputSpec(height=config.height, width=config.width),
        output=OutputSpec(embedding=embedding, dim=checkpoint.network.embedding_dim(embedding)),
        network=dataclasses.asdict(config),
        recipe=checkpoint.recipe.name,
        weights_sha256=weights,
        space=space_id(weights, embedding),
        producer=f"sa-deploy {version('sa-deploy')}",
    )


def export_onnx(
    checkpoint: Checkpoint,
    out: Path,
    images: Images,
    *,
    embedding: str = "parts",
    opset: int = DEFAULT_OPSET,
    min_cosine: float = MIN_COSINE_FP32,
) -> Parity:
    """Write an ONNX artefact that has been run against its network.

    Args:
        checkpoint: the weights.
        out: the file to write.
        images: (N, H, W, 3) uint8 BGR crops at the network's size to compare on.
        embedding: ``parts``, ``global`` or ``reduced``.
        opset: of the standard operators.
        min_cosine: of the worst crop.

    Raises:
        ParityError: the file disagrees with the network; nothing is left under ``out``.
    """
    contract = contract_of(checkpoint, embedding)
    model = onnx_from_network(DeployNetwork(checkpoint.network, embedding), contract, opset=opset)
    reference = network_embed(checkpoint.network, embedding)(images)
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
        with open_runner(temporary, "onnxruntime") as runner:
            parity = measure_parity(runner.run, reference, images)
        require_parity(parity, min_cosine=min_cosine, name=str(out))
    return parity
