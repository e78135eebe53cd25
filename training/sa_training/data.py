"""Training crops: decoding, augmentation, sampling; each a function of (seed, epoch, position).

Because no draw depends on the order in which workers run, the same seed gives the same batches
whatever the number of workers, and a resumed run sees what the interrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sa_runtime.arrays import Image
from sa_runtime.crops import resize
from sa_runtime.datasets.base import Sample
from sa_runtime.decoding import read_image
from sa_training.pixels import IMAGENET_MEAN, IMAGENET_STD
from sa_training.recipes import Recipe

_CACHE_BYTES = 1_500_000_000


class Draw(NamedTuple):
    """One image of one epoch: ``position`` in the epoch's order, ``image`` in the data set."""

    epoch: int
    position: int
    image: int


class TrainingImages(Protocol):
    """The training images of a data set at the network's size."""

    def __len__(self) -> int:
        """How many."""

    def crop(self, index: int) -> Image:
        """Image ``index``, (height, width, 3) uint8 BGR; the caller does not change it."""

    def name(self, index: int) -> str:
        """What to call image ``index`` in a message."""


class FileImages:
    """Image files, decoded and resized when asked for.

    Args:
        samples: the files.
        height, width: of the network's input.
        keep: keep in memory what was decoded, where the whole set fits 1.5 GB. For a single
            process: workers would each keep a copy.
    """

    def __init__(self, samples: Sequence[Sample], height: int, width: int, *, keep: bool) -> None:
        self._samples = samples
        self._size = (height, width)
        keep = keep and len(samples) * height * width * 3 <= _CACHE_BYTES
        self._kept: list[Image | None] | None = [None] * len(samples) if keep else None

    def __len__(self) -> int:
        return len(self._samples)

    def crop(self, index: int) -> Image:
        """Image ``index``, (height, width, 3) uint8 BGR."""
        kept = self._kept[index] if self._kept is not None else None
        if kept is None:
            kept = resize(read_image(self._samples[index].path), *self._size)
            if self._kept is not None:
                self._kept[index] = kept
        return kept

    def name(self, index: int) -> str:
        """Its path."""
        return str(self._samples[index].path)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """TrainingImages that are in memory already: ``images`` (N, height, width, 3) uint8 BGR."""

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def crop(self, index: int) -> Image:
        """Image ``index``."""
        image: Image = self.images[index]
        return image

    def name(self, index: int) -> str:
        """Its row."""
        return f"image {index}"


class TrainingCrops(Dataset[tuple[Tensor, int, int]]):
    """Augmented training crops, (H, W, 3) uint8 BGR, with their labels and indices.

    Args:
        images: the training images.
        labels: 0..K-1, one an image.
        recipe: the augmentation.
        seed: of every draw.
    """

    def __init__(
        self, images: TrainingImages, labels: Sequence[int], recipe: Recipe, seed: int
    ) -> None:
        self.images = images
        self.labels = labels
        self.recipe = recipe
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, int]:
        rng = np.random.default_rng((self.seed, draw.epoch, draw.position))
        crop = augment(self.images.crop(draw.image), self.recipe, rng)
        return torch.from_numpy(crop), self.labels[draw.image], draw.image


def augment(crop: Image, recipe: Recipe, rng: np.random.Generator) -> Image:
    """Flip, shift, change the colours of and erase a part of a crop, as the recipe says.

    Args:
        crop: (H, W, 3) uint8 BGR; not changed.
        recipe: the probabilities.
        rng: of every draw.

    Returns:
        A new array of the same shape.
    """
    if rng.random() < recipe.flip:
        crop = crop[:, ::-1]
    if recipe.pad:
        crop = _shifted(crop, *rng.integers(-recipe.pad, recipe.pad + 1, size=2))
    if recipe.colour_jitter:
        j = recipe.colour_jitter
        gain = rng.uniform(1 - j, 1 + j) * rng.uniform(1 - j, 1 + j, size=3)
        table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)
        crop = np.asarray(cv2.LUT(np.ascontiguousarray(crop), table[None]), np.uint8)
    crop = np.array(crop)
    if rng.random() < recipe.erase:
        _erase(crop, rng)
    return crop


def _shifted(crop: Image, down: int, right: int) -> Image:
    """A crop moved by some pixels, black where nothing was."""
    height, width, _ = crop.shape
    moved = np.zeros_like(crop)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = crop[
        max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    return moved


def _erase(crop: Image, rng: np.random.Generator) -> None:
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


class BatchSampler(Sampler[list[Draw]]):
    """The batches of one epoch: all images shuffled, or K images of each of P identities.

    An identity comes again when all others have come, an image when all of its identity have; so
    an epoch shows nearly every image once. With several processes the order is one for all: each
    step takes the next ``batch * processes`` images, process r the r-th ``batch`` of them.

    Args:
        labels: one an image.
        batch: images a step and process; an incomplete step is dropped.
        images_per_identity: K, a divisor of the batch; 0 for a plain shuffle.
        seed: of the order.
        rank, processes: which process this is, of how many.

    Attributes:
        epoch: the one whose order is given next.
        first: steps of it to leave out, when a run goes on in the middle of an epoch.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch: int,
        images_per_identity: int,
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.labels = np.asarray(labels)
        self.batch = batch
        self.images_per_identity = images_per_identity
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.first = 0

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return len(self.labels) // (self.batch * self.processes)

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.order()
        for step in range(self.first, self.steps):
            start = (step * self.processes + self.rank) * self.batch
            yield [
                Draw(self.epoch, position, order[position])
                for position in range(start, start + self.batch)
            ]

    def order(self) -> list[int]:
        """Indices of the epoch's images, those of all processes."""
        rng = np.random.default_rng((self.seed, self.epoch))
        count = self.steps * self.processes * self.batch
        if self.images_per_identity == 0:
            return list(map(int, rng.permutation(len(self.labels))[:count]))
        return self._by_identity(rng, count)

    def _by_identity(self, rng: np.random.Generator, count: int) -> list[int]:
        by_label = np.argsort(self.labels, kind="stable")
        members = np.split(by_label, np.cumsum(np.bincount(self.labels))[:-1])
        members = [images for images in members if len(images)]
        waiting: list[list[int]] = [[] for _ in members]
        order: list[int] = []
        identities: list[int] = []
        while len(order) < count:
            if not identities:
                identities = rng.permutation(len(members)).tolist()
            identity = identities.pop()
            while len(waiting[identity]) < self.images_per_identity:
                waiting[identity] += rng.permutation(members[identity]).tolist()
            order += waiting[identity][: self.images_per_identity]
            del waiting[identity][: self.images_per_identity]
        return order


def training_loader(
    crops: TrainingCrops, sampler: BatchSampler, workers: int, *, pin: bool
) -> DataLoader[tuple[Tensor, int, int]]:
    """Batches of (N, H, W, 3) uint8 crops, (N,) labels and (N,) indices.

    Args:
        crops: the images.
        sampler: their order.
        workers: processes that decode; 0 decodes in the calling one.
        pin: page-locked memory, for a GPU.
    """
    return DataLoader(
        crops,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_single_threaded if workers else None,
        # The loader draws a seed for its workers when an epoch begins: not from the global
        # generator, whose state belongs to the checkpoint.
        generator=torch.Generator(),
    )


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)
