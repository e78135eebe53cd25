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
from sa_training.network import NetworkConfig, SANetwork


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
            space=space_of(seen, config, name),
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
        space=space_of(seen, config, main),
        precision=options.precision,
        max_batch=options.batch,
        fixed_batch=options.batch is not None,
        flops=flops_per_image(deployed),
        producer=f"sa-deploy {version('sa-deploy')}",
    )


def space_of(seen: str, config: NetworkConfig, embedding: str) -> str:
    """Id of the feature space of some weights under a configuration.

    One file of weights without a configuration fits several recipes whose networks compute
    different things of it: attention has no weights. Settings that stand as in
    :class:`NetworkConfig` add nothing to the id; the number of parts shows in the vectors' width.

    >>> from sa_training.network import NetworkConfig
    >>> sa, authors = NetworkConfig(), NetworkConfig(attention="stages")
    >>> space_of("ab", sa, "parts") == space_id("ab", "parts") != space_of("ab", authors, "parts")
    True
    """
    usual = NetworkConfig()
    names = ["part_normalize"]
    if embedding == "reduced":
        names += ["part_weight_normalize", "neck"]
    found = [(name, getattr(config, name)) for name in names]
    other = "".join(f"/{name}={value}" for name, value in found if value != getattr(usual, name))
    return space_id(f"{seen}{other}", embedding)


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
