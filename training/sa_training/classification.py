"""The classification experiment of the attention layer: GAP against SA and GAP, by top-1 and top-5.

The network is the SA network with the head ``linear``, the loop that of re-identification; recipes
are ``cifar100-gap`` and ``cifar100-sa``. ``sa-deploy train -d cifar100`` comes here too, by
:mod:`sa_training.tasks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sa_runtime.errors import InputError
from sa_training.checkpoints import Checkpoint
from sa_training.classification_data import LabelledImages
from sa_training.data import ArrayImages
from sa_training.loop import Progress, TrainingOptions, TrainingSet, fit
from sa_training.network import SANetwork
from sa_training.optimisation import resolve_device
from sa_training.pixels import network_input
from sa_training.recipes import Recipe

_BATCH = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares of test images, 0..1: the right class first, and among the first five."""

    top1: float
    top5: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRun:
    """What a training leaves: its last checkpoint and the accuracy of that network."""

    checkpoint: Checkpoint
    accuracy: Accuracy


def train_classifier(
    recipe: Recipe,
    train: LabelledImages,
    test: LabelledImages,
    options: TrainingOptions,
    *,
    resume: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> ClassifierRun:
    """Train on labelled images and test on others, as :func:`sa_training.loop.fit` does.

    Args:
        recipe: of head ``linear``, as ``cifar100-sa``; the class count comes from ``train``.
        train: images of the network's size.
        test: images of the same size to test with.
        options: where and how fast. With ``evaluate_every`` the lines of ``metrics.jsonl`` hold
            ``top1`` and ``top5`` and ``best.pt`` is the network of the best top-1 on ``test``;
            what is returned is always the last network.
        resume: checkpoint of an interrupted run of the same recipe.
        on_step: called after every step.

    Raises:
        DatasetError: fewer training images than one batch.
        InputError: a recipe for people, images of another size, or a class that only ``test`` has.
        CheckpointError: ``resume`` cannot be read or is of another recipe.
        TrainingError: a loss that is not finite.
    """
    training = training_set(recipe, train)
    _check_images(test, recipe)
    if int(test.labels.max()) >= training.classes:
        raise InputError(
            f"{test.name}: has class {int(test.labels.max())}; expected the classes 0 to "
            f"{training.classes - 1} of {train.name}"
        )

    def evaluate(network: SANetwork) -> dict[str, float]:
        return dataclasses.asdict(accuracy_of(network, test))

    checkpoint = fit(recipe, training, options, resume=resume, on_step=on_step, evaluate=evaluate)
    network = checkpoint.network.to(resolve_device(options.device))
    accuracy = accuracy_of(network, test)
    network.cpu()
    return ClassifierRun(checkpoint=checkpoint, accuracy=accuracy)


def accuracy_of(network: SANetwork, test: LabelledImages) -> Accuracy:
    """Top-1 and top-5 accuracy of the global classifier, in float32.

    Among classes of equal logits the right one comes last, so that a network which says the same
    of all is always wrong; so does one whose logits are not numbers.

    Args:
        network: in evaluation mode, on any device.
        test: images of the network's size.
    """
    device = next(network.parameters()).device
    place = network.config.classifiers.index("global")
    found = np.zeros(2, np.int64)
    for start in range(0, len(test.labels), _BATCH):
        images_NHW3 = torch.from_numpy(test.images[start : start + _BATCH]).to(device)
        with torch.inference_mode():
            logits_NK = network(network_input(images_NHW3)).logits[place]
        labels_N = torch.from_numpy(test.labels[start : start + _BATCH])
        found += [hits(logits_NK.float().cpu(), labels_N, k) for k in (1, 5)]
    top1, top5 = (found / len(test.labels)).tolist()
    return Accuracy(top1=top1, top5=top5)


def hits(logits_NK: Tensor, labels_N: Tensor, k: int) -> int:
    """How many images have their class among the first k.

    >>> hits(torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), torch.tensor([2, 0]), k=2)
    1
    """
    right_N1 = logits_NK.gather(1, labels_N[:, None])
    rank_N = (~(logits_NK < right_N1)).sum(dim=1)
    return int((rank_N <= k).sum())


def training_set(recipe: Recipe, train: LabelledImages) -> TrainingSet:
    """Labelled images as the loop takes them.

    Raises:
        InputError: a recipe for people, or images of another size than its network's.
    """
    if recipe.network.head != "linear":
        raise InputError(
            f"recipe {recipe.name}: finds people again, and {train.name} holds images to "
            "classify; pass `recipe='cifar100-sa'` or 'cifar100-gap'"
        )
    _check_images(train, recipe)
    return TrainingSet(
        name=train.name, images=ArrayImages(train.images), labels=train.labels.tolist()
    )


def _check_images(images: LabelledImages, recipe: Recipe) -> None:
    size = (recipe.network.height, recipe.network.width, 3)
    if (
        images.images.shape != (len(images.labels), *size)
        or images.images.dtype != np.uint8
        or not len(images.labels)
        or images.labels.min() < 0
    ):
        raise InputError(
            f"{images.name}: {images.images.dtype} {images.images.shape} with {len(images.labels)} "
            f"labels; expected (N, {size[0]}, {size[1]}, 3) uint8 BGR and N classes from 0"
        )
