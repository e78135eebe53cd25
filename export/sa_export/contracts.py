"""What the contract of a checkpoint's artefacts says."""

from __future__ import annotations

import copy
import dataclasses
from importlib.metadata import version

import torch
from torch.utils.flop_counter import FlopCounterMode

from sa_export.deploy import DeployNetwork
from sa_export.lowering import plain_pool
from sa_export.options import ExportOptions
from sa_runtime.artefact.contract import Contract, ExtraOutput, InputSpec, OutputSpec, space_id
from sa_training.attention_pool import lowered_to
from sa_training.checkpoints import Checkpoint, weights_sha256
from sa_training.network import SANetwork


def resized(network: SANetwork, height: int | None, width: int | None) -> SANetwork:
    """The same weights at another input size.

    Raises:
        InputError: a size that the network cannot take.
    """
    config = network.config
    height, width = height or config.height, width or config.width
    if (height, width) == (config.height, config.width):
        return network
    config = dataclasses.replace(config, height=height, width=width)
    other = SANetwork(config)
    other.load_state_dict(network.state_dict())
    return other.eval()


def contract_of(
    checkpoint: Checkpoint, deployed: DeployNetwork, options: ExportOptions
) -> Contract:
    """The contract of a checkpoint's artefacts, without parity."""
    config, spec = deployed.config, deployed.spec
    weights = weights_sha256(checkpoint.network)
    trained = checkpoint.network.config
    same_size = (config.height, config.width) == (trained.height, trained.width)
    seen = weights if same_size else f"{weights}@{config.height}x{config.width}"
    channels_last = spec.input == "uint8-nhwc"
    main, *others = spec.embeddings
    dims = {name: checkpoint.network.embedding_dim(name) for name in spec.embeddings}
    extra = [
        ExtraOutput(
            name=spec.output_names[index],
            kind="embedding",
            shape=(dims[name],),
            embedding=name,
            space=space_id(seen, name),
            index=index,
        )
        for index, name in enumerate(others, start=1)
    ]
    if spec.attention_map:
        rows, columns = map_size(deployed)
        extra.append(
            ExtraOutput(
                name="attention", kind="attention", shape=(rows, columns), index=len(extra) + 1
            )
        )
    return Contract(
        input=InputSpec(
            layout="nhwc" if channels_last else "nchw",
            dtype="uint8" if channels_last else "float32",
            colour="bgr" if channels_last else "rgb",
            height=config.height,
            width=config.width,
        ),
        output=OutputSpec(embedding=main, dim=dims[main]),
        extra_outputs=tuple(extra),
        network=dataclasses.asdict(config),
        recipe=checkpoint.recipe.name,
        weights_sha256=weights,
        space=space_id(seen, main),
        precision=options.precision,
        max_batch=options.batch,
        fixed_batch=options.batch is not None,
        flops=flops_per_image(deployed),
        producer=f"sa-deploy {version('sa-deploy')}",
    )


def map_size(deployed: DeployNetwork) -> tuple[int, int]:
    """Rows and columns of the last feature map."""
    base = copy.deepcopy(deployed.base).to("meta")
    size = (1, 3, deployed.config.height, deployed.config.width)
    last: torch.Tensor = base(torch.empty(size, dtype=deployed.dtype, device="meta"))[-1]
    return last.shape[2], last.shape[3]


def flops_per_image(deployed: DeployNetwork) -> int:
    """Floating point operations of one image, a multiply and an add counted as two."""
    model = copy.deepcopy(deployed).to("meta")
    height, width = deployed.config.height, deployed.config.width
    if deployed.spec.input == "uint8-nhwc":
        image = torch.empty((1, height, width, 3), dtype=torch.uint8, device="meta")
    else:
        image = torch.empty((1, 3, height, width), device="meta")
    with lowered_to(plain_pool), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())
