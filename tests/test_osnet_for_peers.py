"""A trained OSNet under torchreid's names by benchmarks/osnet_for_peers.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.osnet_for_peers import for_peers
from sa_runtime.errors import InputError
from sa_training.architectures.osnet import OSNet, osnet_config
from sa_training.checkpoints import save_checkpoint
from sa_training.network import SANetwork
from sa_training.recipes import recipe


def _checkpoint(path: Path, parts: int) -> SANetwork:
    torch.manual_seed(0)
    tiny = recipe("tiny")
    config = dataclasses.replace(
        tiny.network, backbone="osnet_x0_25", parts=parts, attention="none", classes=3
    )
    network = SANetwork(config).eval()
    save_checkpoint(path, network, dataclasses.replace(tiny, network=config), 1, {})
    return network


def test_the_peers_network_gives_the_same_unit_vectors(tmp_path: Path) -> None:
    ours = _checkpoint(tmp_path / "ours.pt", parts=1)
    theirs = OSNet(osnet_config("osnet_x0_25")).eval()
    theirs.load_state_dict(for_peers(tmp_path / "ours.pt"))
    x_N3HW = torch.randn(2, 3, 128, 64)
    with torch.inference_mode():
        given_NF = torch.nn.functional.normalize(theirs(x_N3HW), dim=1)
        expected_ND = ours.embed(x_N3HW)
    torch.testing.assert_close(given_NF[:, : expected_ND.shape[1]], expected_ND)
    assert not given_NF[:, expected_ND.shape[1] :].any()


def test_parts_are_refused_with_what_to_train_by(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "ours.pt", parts=2)
    with pytest.raises(InputError, match=r"2 parts.*--set network.parts=1"):
        for_peers(tmp_path / "ours.pt")
