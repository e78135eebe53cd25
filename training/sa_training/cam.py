"""Class activation maps (Zhou et al., arXiv 1512.04150) of the SA network's global classifier.

With x the last map, ``reduce`` the network's 1x1 convolution, batch norm and neck, w_k the global
classifier's weights for class k and A the attention of mean 1, over the pixels (h, w):

    GAP          w_k . reduce(x[:, h, w])
    GAP with SA  w_k . reduce(A[h, w] * x[:, h, w])

Where ``reduce`` is affine (head ``linear``, neck ``bn``) and the parts are equally high, the mean
of a map is the class's logit under that pooling, less the classifier's bias. With a ReLU in
``reduce`` the map shows what each pixel would say alone. Shape suffixes: N images, C channels,
H x W map, K classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sa_runtime.errors import CheckpointError, bad_value
from sa_training.attention_pool import attention_map
from sa_training.network import SANetwork
from sa_training.pixels import network_input

Map = NDArray[np.float32]
"""(H, W) float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassActivation:
    """What one image activates.

    Attributes:
        label: the class k, 0..K-1.
        probability: of the class by the network's global classifier, 0..1.
        gap: class activation under plain average pooling, (H, W).
        sa: class activation with every pixel weighted by the attention first, (H, W).
        attention: of the last map, mean 1, (H, W).
        stages: attention of stages 1 to 3, mean 1, each of its own size.
    """

    label: int
    probability: float
    gap: Map
    sa: Map
    attention: Map
    stages: tuple[Map, ...]


def class_activations(
    network: SANetwork, images_NHW3: NDArray[np.uint8], label: int | None = None
) -> list[ClassActivation]:
    """Class activation maps of images, with and without spatial attention.

    The attention's normalisation is the network's ``normalize``, wherever the network itself puts
    attention; the weights are the same for both maps.

    Args:
        network: in evaluation mode.
        images_NHW3: (N, height, width, 3) uint8 BGR, of the network's size.
        label: the class to show, 0..K-1; by default the one that the global classifier predicts.

    Raises:
        InputError: ``label`` is no class of the network.
        CheckpointError: the network gives values that are not finite.
    """
    check_label(network, label)
    with torch.inference_mode():
        *stages, last_NCHW = network.base(network_input(torch.from_numpy(images_NHW3)))
        logits_NK = _global_logits(network, last_NCHW)
        labels_N = (
            logits_NK.argmax(1)
            if label is None
            else logits_NK.new_full((len(images_NHW3),), label, dtype=torch.long)
        )
        probability_N = logits_NK.softmax(1).gather(1, labels_N[:, None])[:, 0]
        attention_N1HW = attention_map(last_NCHW, network.config.normalize)
        maps = {
            "gap": class_map(network, last_NCHW, labels_N),
            "sa": class_map(network, last_NCHW * attention_N1HW, labels_N),
            "attention": attention_N1HW[:, 0],
        }
        seen = [attention_map(stage, network.config.normalize)[:, 0] for stage in stages]
    if not all(bool(map_NHW.isfinite().all()) for map_NHW in maps.values()):
        raise CheckpointError(
            "the network gives values that are not finite; its weights are damaged or its "
            "training diverged"
        )
    return [
        ClassActivation(
            label=int(labels_N[n]),
            probability=float(probability_N[n]),
            **{name: map_NHW[n].numpy() for name, map_NHW in maps.items()},
            stages=tuple(map_NHW[n].numpy() for map_NHW in seen),
        )
        for n in range(len(images_NHW3))
    ]


def check_label(network: SANetwork, label: int | None) -> None:
    """Raise InputError unless ``label`` is None or a class of the network."""
    classes = network.config.classes
    if label is not None and not 0 <= label < classes:
        raise bad_value(
            "label",
            label,
            f"these weights know the classes 0 to {classes - 1}; pass one of them, or none to see "
            "the predicted one",
        )


def class_map(network: SANetwork, last_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    """``w_k . reduce(x[:, h, w])`` for the class of each image, (N, H, W) float32.

    Args:
        network: in evaluation mode.
        last_NCHW: the last map, weighted by an attention or not.
        labels_N: (N,) int64, the classes k.
    """
    pixels_NFP = network.reduce(last_NCHW.flatten(2))
    weight_NF = _classifier(network).weight[labels_N]
    map_NP = torch.einsum("nf,nfp->np", weight_NF.float(), pixels_NFP.float())
    return map_NP.view(len(map_NP), *last_NCHW.shape[2:])


def _global_logits(network: SANetwork, last_NCHW: Tensor) -> Tensor:
    reduced_NFP = network.reduce(network.pool(last_NCHW, network.config.parts))
    logits_NK: Tensor = _classifier(network)(reduced_NFP.mean(dim=2))
    return logits_NK


def _classifier(network: SANetwork) -> nn.Linear:
    classifier = network.get_submodule(f"instance{network.config.parts}")
    assert isinstance(classifier, nn.Linear)
    return classifier
