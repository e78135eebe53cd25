"""The deployed network against the trained one, for every neck and place of attention."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from sa_export.deploy import DeployNetwork, GraphSpec
from sa_training.network import EMBEDDINGS, Attention
from sa_training.pixels import network_input
from tests.conftest import tiny_network


@pytest.mark.parametrize("place", ["map", "parts"])
@pytest.mark.parametrize("neck", ["relu", "bn"])
@pytest.mark.parametrize("attention", get_args(Attention))
def test_deployed_embeddings_are_the_networks(attention: str, neck: str, place: str) -> None:
    network = tiny_network(attention=attention, neck=neck, backbone_attention=place)
    images = torch.randint(0, 256, (3, 128, 64, 3), dtype=torch.uint8)
    deployed = DeployNetwork(network, GraphSpec(embeddings=EMBEDDINGS))
    with torch.inference_mode():
        found = deployed(images)
        for name, vectors in zip(EMBEDDINGS, found, strict=True):
            expected = network.embed(network_input(images), name)
            assert torch.allclose(vectors, expected, atol=2e-5), name
