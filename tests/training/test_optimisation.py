"""Learning rates, parameter groups, the moving average and precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from sa_runtime.errors import InputError
from sa_training.network import SANetwork
from sa_training.optimisation import (
    MovingAverage,
    autocast_type,
    lr_factor,
    optimizer_of,
    resolve_device,
)
from sa_training.recipes import authors, strong, tiny


def test_the_authors_groups_and_options() -> None:
    with torch.device("meta"):
        network = SANetwork(authors().network)
    optimizer = optimizer_of(network, authors())
    assert isinstance(optimizer, torch.optim.SGD)
    base, head = optimizer.param_groups
    # Theirs are 161 and 27 tensors: their backbone carries an unused classifier of 2, their head
    # an unused convolution.
    assert (len(base["params"]), len(head["params"])) == (159, 26)
    assert (base["base_lr"], head["base_lr"]) == (pytest.approx(0.01), 0.1)
    for group in (base, head):
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)


def test_a_backbone_from_nothing_learns_as_fast_as_the_rest_in_strong() -> None:
    with torch.device("meta"):
        network = SANetwork(dataclasses.replace(strong().network, backbone="resnet18"))
    for pretrained, rate in (("imagenet", 3.5e-4), ("weights.pth", 3.5e-4), ("none", 1.4e-3)):
        recipe = dataclasses.replace(strong(), pretrained=pretrained)
        base, head = optimizer_of(network, recipe).param_groups
        assert (base["base_lr"], head["base_lr"]) == (pytest.approx(rate), 1.4e-3)
    assert dataclasses.replace(authors(), pretrained="none").backbone_lr == pytest.approx(0.01)


def test_cosine_with_warm_up() -> None:
    recipe = dataclasses.replace(strong(), warmup=0.1)
    rates = [lr_factor(recipe, step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_steps_fall_by_ten() -> None:
    recipe = dataclasses.replace(authors(), step_size=2)
    rates = [lr_factor(recipe, epoch * 5, 50, 5) for epoch in range(5)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_moving_average_of_weights_and_statistics() -> None:
    layer = nn.BatchNorm1d(1)
    nn.init.constant_(layer.weight, 0.0)
    average = MovingAverage(layer, decay=0.5)
    expected = 0.0
    for step, value in enumerate((1.0, 3.0, 2.0), start=1):
        nn.init.constant_(layer.weight, value)
        nn.init.constant_(layer.running_mean, value)  # type: ignore[arg-type]
        average.update(layer, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.state["weight"]) == pytest.approx(expected)
    assert float(average.state["running_mean"]) == pytest.approx(expected)


def test_unknown_names_are_refused() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(InputError, match=r"precision='int4': unknown; choose from auto, fp32"):
        autocast_type("int4", cpu)
    with pytest.raises(InputError, match=r"device='tpu9': expected auto, cpu, cuda or cuda:N"):
        resolve_device("tpu9")
    assert autocast_type("fp32", cpu) is None
    assert autocast_type("bf16", cpu) is torch.bfloat16
    assert autocast_type("fp16", cpu) is torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"device='cuda': no CUDA device here; pass `dev"):
        resolve_device("cuda")


def test_adamw() -> None:
    network = SANetwork(dataclasses.replace(tiny().network, classes=3))
    assert isinstance(optimizer_of(network, tiny()), torch.optim.AdamW)
