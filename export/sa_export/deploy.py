"""The network as it is deployed: from uint8 crops to unit vectors, with everything constant folded in.

Folded: batch norms into their convolutions; colour order and the division by 255 * std into the
first convolution. The mean stays a subtraction, because the convolution pads with zeros after it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sa_training.attention_pool import attention_pool
from sa_training.network import SANetwork
from sa_training.pixels import IMAGENET_MEAN, IMAGENET_STD


class DeployNetwork(nn.Module):
    """Crops in, embeddings out.

    Args:
        network: trained; it is copied, not changed.
        embedding: ``parts``, ``global`` or ``reduced`` of :meth:`SANetwork.embed`.
    """

    mean_131: Tensor

    def __init__(self, network: SANetwork, embedding: str = "parts") -> None:
        super().__init__()
        network = copy.deepcopy(network).cpu().float().eval()
        self.embedding = embedding
        self.parts = 1 if embedding == "global" else network.config.parts
        self.normalize = network.config.part_normalize
        self.base = fold_batch_norms(network.base)
        conv1 = self.base.get_submodule("conv1")
        assert isinstance(conv1, nn.Conv2d)
        std_3 = 255 * torch.tensor(IMAGENET_STD)
        with torch.no_grad():
            conv1.weight.copy_((conv1.weight / std_3[:, None, None]).flip(1))
        mean_3 = 255 * torch.tensor(IMAGENET_MEAN[::-1])
        self.register_buffer("mean_131", mean_3[:, None, None])
        if embedding == "reduced":
            self.reduce = fuse_conv_bn_eval(network.local_conv, network.feat_bn2d)

    def forward(self, images_NHW3: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, D) float32, rows of unit length."""
        pixels_N3HW = images_NHW3.permute(0, 3, 1, 2).float() - self.mean_131
        last_NCHW = self.base(pixels_N3HW)[-1]
        columns_NCP = attention_pool(last_NCHW, self.parts, self.normalize)
        if self.embedding == "reduced":
            reduced_NFP = F.relu(self.reduce(columns_NCP.unsqueeze(3))).squeeze(3)
            columns_NCP = torch.cat([reduced_NFP, reduced_NFP.mean(dim=2, keepdim=True)], dim=2)
        unit_ND = _unit(columns_NCP).flatten(1)
        return _unit(unit_ND)


def _unit(x: Tensor) -> Tensor:
    """To unit length along axis 1; zeros stay zeros."""
    length = x.square().sum(dim=1, keepdim=True).sqrt()
    return x / length.clamp_min(1e-12)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm of a ResNet into the convolution before it, in place.

    Pairs are ``convK``/``bnK`` and the neighbours inside a shortcut's ``Sequential``.
    """
    for name, norm in list(module.named_modules()):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        conv_name = str(int(leaf) - 1) if leaf.isdigit() else leaf.replace("bn", "conv")
        conv = owner.get_submodule(conv_name)
        assert isinstance(conv, nn.Conv2d)
        setattr(owner, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(owner, leaf, nn.Identity())
    return module
