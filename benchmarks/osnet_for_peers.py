"""A trained OSNet under torchreid's names, so that torchreid and BoxMOT run the same weights.

Run: ``python -m benchmarks.osnet_for_peers CHECKPOINT.pt --out osnet_x0_25_market1501.pt``.

Takes a checkpoint of ``sa-deploy train --arch osnet_... --attention none --set network.parts=1``,
whose embedding is the mean of the last map. Theirs stands behind a linear layer, a batch norm and
a ReLU: an identity passes on the mean, which is not negative, and zeros fill the rest. So vectors
of unit length are the same, and so is the speed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from sa_runtime.errors import InputError
from sa_runtime.system.files import atomic_path
from sa_training.architectures.osnet import NAMES, OSNet, osnet_config
from sa_training.checkpoints import load_checkpoint

BODY = "base.body."


def for_peers(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint as torchreid's ``build_model`` names them, without classifier.

    Raises:
        InputError: a network whose embedding theirs cannot give.
    """
    network = load_checkpoint(path).network
    config = network.config
    if config.backbone not in NAMES or config.parts != 1 or config.part_normalize != "none":
        raise InputError(
            f"{path}: {config.backbone} of {config.parts} parts, attention {config.attention}; "
            "expected an OSNet trained with --attention none --set network.parts=1"
        )
    theirs = OSNet(osnet_config(config.backbone)).eval()
    linear, norm, _ = theirs.fc
    assert isinstance(linear, torch.nn.Linear)
    assert isinstance(norm, torch.nn.BatchNorm1d)
    torch.nn.init.eye_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    torch.nn.init.constant_(norm.weight, (1 + norm.eps) ** 0.5)
    ours = {name.removeprefix(BODY): of for name, of in network.state_dict().items()}
    head = {f"fc.{name}": of for name, of in theirs.fc.state_dict().items()}
    theirs.load_state_dict({name: ours.get(name, head.get(name)) for name in theirs.state_dict()})
    return theirs.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    weights = for_peers(arguments.checkpoint)
    with atomic_path(arguments.out) as temporary:
        torch.save(weights, temporary)


if __name__ == "__main__":
    main()
