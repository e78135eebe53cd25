"""What a training would be, worked out without doing it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sa_training.data import BatchSampler
from sa_training.distributed import Processes
from sa_training.loop import TrainingOptions, TrainingSet
from sa_training.network import NetworkConfig, SANetwork
from sa_training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Size and length of a training.

    Attributes:
        parameters: of the network with its classifiers.
        gflops: of one image forward, in 10^9; a multiplication and an addition count as two.
        classes: training people, or classes.
        images: training images.
        epoch_steps: steps of an epoch.
        steps: of the run.
    """

    parameters: int
    gflops: float
    classes: int
    images: int
    epoch_steps: int
    steps: int


def plan(recipe: Recipe, training: TrainingSet, options: TrainingOptions) -> Plan:
    """Work a training out.

    Args:
        recipe: with the network's architecture; its class count comes from the data.
        training: what it would be trained on.
        options: how long at most.
    """
    config = recipe.network_for(training.classes)
    sampler = BatchSampler(
        training.labels,
        recipe.batch,
        recipe.images_per_identity,
        options.seed,
        processes=Processes.from_environment().count,
    )
    steps = recipe.epochs * sampler.steps
    parameters, flops = size_of(config)
    return Plan(
        parameters=parameters,
        gflops=flops / 1e9,
        classes=training.classes,
        images=len(training.labels),
        epoch_steps=sampler.steps,
        steps=min(steps, options.max_steps or steps),
    )


def size_of(config: NetworkConfig) -> tuple[int, int]:
    """Parameters, and floating point operations of one image forward (convolutions, matrices).

    >>> from sa_training.recipes import sa
    >>> parameters, flops = size_of(sa().network)
    >>> round(parameters / 1e6, 1), round(flops / 1e9, 1)
    (26.4, 12.2)
    """
    with torch.device("meta"):
        network = SANetwork(config).eval()
        image = torch.empty(1, 3, config.height, config.width)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return sum(p.numel() for p in network.parameters()), int(counter.get_total_flops())
