"""Training crops: decoding, augmentation and sampling, each a function of (seed, epoch, index) only.

Because no draw depends on the order in which workers run, the same seed gives the same batches
whatever the number of workers, and a resumed run sees what the interrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sa_runtime.crops import read_image, resize
from sa_runtime.datasets.base import Sample
from sa_training.pixels import IMAGENET_MEAN, IMAGENET_STD
from sa_training.recipes import Recipe

_CACHE_BYTES = 1_500_000_000


class TrainingCrops(Dataset[tuple[Tensor, int]]):
    """Augmented training crops, (H, W, 3) uint8 BGR, with their labels.

    Crops are kept in memory once decoded where the whole set fits 1.5 GB.

    Args:
        samples: the training images.
        labels: 0..K-1, one a sample.
        recipe: size and augmentation.
        seed: of every draw.
    """

    def __init__(
        self, samples: Sequence[Sample], labels: Sequence[int], recipe: Recipe, seed: int
    ) -> None:
        self.samples = samples
        self.labels = labels
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0
        self._size = (recipe.network.height, recipe.network.width)
        fits = len(samples) * self._size[0] * self._size[1] * 3 <= _CACHE_BYTES
        self._cache: list[NDArray[np.uint8] | None] | None = [None] * len(samples) if fits else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        crop = augment(self._crop(index), self.recipe, rng)
        return torch.from_numpy(crop), self.labels[index]

    def _crop(self, index: int) -> NDArray[np.uint8]:
        crop = self._cache[index] if self._cache is not None else None
        if crop is None:
            crop = resize(read_image(self.samples[index].path), *self._size)
            if self._cache is not None:
                self._cache[index] = crop
        return crop


def augment(crop: NDArray[np.uint8], recipe: Recipe, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Flip, shift, change the colours of and erase a part of a crop, as the recipe says.

    Args:
        crop: (H, W, 3) uint8 BGR; not changed.
        recipe: the probabilities.
        rng: of every draw.

    Returns:
        A new array of the same shape.
    """
    height, width, _ = crop.shape
    if rng.random() < recipe.flip:
        crop = crop[:, ::-1]
    if recipe.pad:
        padded = np.pad(crop, ((recipe.pad, recipe.pad), (recipe.pad, recipe.pad), (0, 0)))
        top, left = rng.integers(0, 2 * recipe.pad + 1, size=2)
        crop = padded[top : top + height, left : left + width]
    if recipe.colour_jitter:
        j = recipe.colour_jitter
        gain = rng.uniform(1 - j, 1 + j) * rng.uniform(1 - j / 2, 1 + j / 2, size=3)
        table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)
        crop = table[crop, np.arange(3)]
    crop = np.array(crop)
    if rng.random() < recipe.erase:
        _erase(crop, rng)
    return crop


def _erase(crop: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Random erasing (Zhong et al., arXiv 1708.04896) with the authors' ranges, in place.

    The fill is their N(0, 1) of normalised pixels, taken back to grey levels.
    """
    height, width, _ = crop.shape
    for _ in range(100):
        area = rng.uniform(0.02, 0.2) * height * width
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(0, height - h), rng.integers(0, width - w)
            mean, std = np.array(IMAGENET_MEAN[::-1]), np.array(IMAGENET_STD[::-1])
            noise = 255 * (mean + std * rng.standard_normal((h, w, 3)))
            crop[top : top + h, left : left + w] = np.clip(noise, 0, 255)
            return


class EpochSampler(Sampler[int]):
    """Indices of one epoch: all shuffled, or K images of each of P identities a batch.

    Args:
        labels: one a sample.
        batch: images a step; incomplete batches are dropped.
        images_per_identity: K, 0 for a plain shuffle.
        seed: of the order.
    """

    def __init__(
        self, labels: Sequence[int], batch: int, images_per_identity: int, seed: int
    ) -> None:
        self.labels = np.asarray(labels)
        self.batch = batch
        self.images_per_identity = images_per_identity
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labels) // self.batch * self.batch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.images_per_identity == 0:
            yield from rng.permutation(len(self.labels))[: len(self)].tolist()
            return
        members = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        identities = self.batch // self.images_per_identity
        for _ in range(len(self) // self.batch):
            for chosen in rng.choice(len(members), identities, replace=len(members) < identities):
                pool = members[chosen]
                few = len(pool) < self.images_per_identity
                yield from rng.choice(pool, self.images_per_identity, replace=few).tolist()
