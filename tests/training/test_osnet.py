"""OSNet against torchreid 0.2.5: the same weights in both, by the same rule, gave these vectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sa_runtime.errors import InputError
from sa_training.architectures.osnet import NAMES, OSNet, osnet_config, osnet_config_of

# The first four numbers and the sum of torchreid's features, in evaluation mode.
RECORDED: dict[str, tuple[float, ...]] = {
    "osnet_x1_0": (1.31377, 0, 0, 0, 1926.41),
    "osnet_x0_25": (0.396457, 0, 0.666548, 0.277594, 1005.59),
    "osnet_ibn_x1_0": (2.53237, 2.20788, 1.69503, 1.17457, 1050.61),
    "osnet_ain_x0_5": (2.40052, 0, 1.20642, 0, 1242.47),
}


def by_rule(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the same shapes, which depend on their names and places alone."""
    made = {}
    for name, value in weights.items():
        if not value.is_floating_point():
            made[name] = value
            continue
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + len(name))
        fan_in = value.numel() // value.shape[0]
        small = wave * math.sqrt(2 / max(fan_in, 2))
        positive = value.ndim == 1 and not name.endswith(("bias", "mean"))
        made[name] = (1 + 0.3 * wave if positive else small).reshape(value.shape).float()
    return made


def image() -> Tensor:
    return torch.sin(torch.arange(2 * 3 * 64 * 32) * 0.37).reshape(2, 3, 64, 32)


@pytest.mark.parametrize("name", RECORDED)
def test_vectors_are_those_of_torchreid(name: str) -> None:
    network = OSNet(osnet_config(name)).eval()
    network.load_state_dict(by_rule(network.state_dict()))
    with torch.inference_mode():
        vectors = network(image())
    found = [*vectors[1, :4].tolist(), vectors.sum().item()]
    assert found == pytest.approx(RECORDED[name], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_architecture_is_told_from_the_weights(name: str) -> None:
    with torch.device("meta"):
        weights = OSNet(osnet_config(name)).state_dict()
    found = osnet_config_of(weights)
    assert found is not None
    assert found.name == name
    weights.pop("conv1.conv.weight")
    assert osnet_config_of(weights) is None


def test_stages_have_the_strides_of_a_resnet() -> None:
    network = OSNet(osnet_config("osnet_x0_25")).eval()
    maps = network.stages(torch.zeros(1, 3, 64, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 8), (96, 8, 4), (128, 4, 2), (128, 4, 2)]
    assert tuple(m.shape[1] for m in maps) == network.channels


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="arch='osnet_x2_0': expected one of osnet_x1_0"):
        osnet_config("osnet_x2_0")
