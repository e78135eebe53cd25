"""Images to classify: CIFAR-100, and a generated problem of the same size.

In the generated problem a class is a shape filled with a texture. The object is a tenth of the
image and stands anywhere, in any two colours; around it lie the same shapes without a texture and
the same textures without a shape, so that only what is seen in one place tells the class.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Image
from sa_runtime.crops import resize
from sa_runtime.datasets.cifar100 import load_cifar100
from sa_runtime.errors import InputError

Grid = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 32
_SCALE = 2
_CANVAS = SIDE * _SCALE
_RADIUS = (5.0, 7.0)
_CLUTTER = 5
_NOISE = 9.0


class LabelledImages(NamedTuple):
    """Images and their classes.

    Attributes:
        name: what to call them in messages.
        images: (N, H, W, 3) uint8 BGR.
        labels: (N,) int64, 0..K-1.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def cifar100(root: Path) -> tuple[LabelledImages, LabelledImages]:
    """CIFAR-100's training and test images with their fine labels.

    Raises:
        DatasetError: another layout, or a file with other content.
    """
    data = load_cifar100(root)
    sides = (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    )
    train, test = (
        LabelledImages(str(root / name), np.ascontiguousarray(images[..., ::-1]), labels)
        for name, images, labels in sides
    )
    return train, test


# Shapes of radius 1 around the origin: (y, x) -> inside.
_SHAPES: tuple[Callable[[Grid, Grid], Mask], ...] = (
    lambda y, x: y**2 + x**2 < 1,
    lambda y, x: np.maximum(abs(y), abs(x)) < 0.86,
    lambda y, x: (y < 0.75) & (2 * abs(x) < y + 1.05),
    lambda y, x: (np.minimum(abs(y), abs(x)) < 0.36) & (np.maximum(abs(y), abs(x)) < 1),
    lambda y, x: (y**2 + x**2 < 1.1) & (y**2 + x**2 > 0.3),
    lambda y, x: abs(y) + abs(x) < 1.15,
)
# Textures in pixels of the image, of period 4: (y, x) -> the first of two colours.
_TEXTURES: tuple[Callable[[Grid, Grid], Mask], ...] = (
    lambda y, x: y % 4 < 2,
    lambda y, x: x % 4 < 2,
    lambda y, x: (y + x) % 5 < 2.5,
    lambda y, x: (y - x) % 5 < 2.5,
    lambda y, x: (y % 6 < 3) ^ (x % 6 < 3),
    lambda y, x: (y % 4 - 2) ** 2 + (x % 4 - 2) ** 2 < 1.5,
)
CLASSES = len(_SHAPES) * len(_TEXTURES)
"""Classes that there can be."""


def synthetic_classification(classes: int, images_per_class: int, seed: int) -> LabelledImages:
    """Draw textured shapes on cluttered ground.

    Args:
        classes: 2 to :data:`CLASSES`.
        images_per_class: of each class.
        seed: equal seeds and sizes give equal images.

    Returns:
        (classes * images_per_class) images of 32x32, class after class.

    Raises:
        InputError: a number of classes or images that cannot be.

    >>> synthetic_classification(3, 2, seed=0).labels.tolist()
    [0, 0, 1, 1, 2, 2]
    """
    if not 2 <= classes <= CLASSES or images_per_class < 1:
        raise InputError(
            f"{classes} classes of {images_per_class} images: expected 2 to {CLASSES} classes of "
            "at least one image"
        )
    labels = np.repeat(np.arange(classes), images_per_class)
    images = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for index, (label, image) in enumerate(zip(labels.tolist(), images, strict=True)):
        image[:] = draw_image(label, np.random.default_rng((seed, index)))
    name = f"{classes} synthetic classes of {images_per_class} images, seed {seed}"
    return LabelledImages(name, images, labels)


def draw_image(label: int, rng: np.random.Generator) -> Image:
    """One image of a class, (32, 32, 3) uint8 BGR."""
    shape = label % len(_SHAPES)
    texture = (label // len(_SHAPES) + shape) % len(_TEXTURES)
    canvas = _ground(rng)
    for _ in range(_CLUTTER):
        colours = _two_colours(rng)
        inside, y, x = _place(rng, _SHAPES[rng.integers(len(_SHAPES))])
        if rng.random() < 0.5:
            canvas[inside] = colours[0]
        else:
            around, y, x = _place(rng, _patch)
            first = _TEXTURES[rng.integers(len(_TEXTURES))](y, x)
            canvas[around] = np.where(first[..., None], *colours)[around]
    inside, y, x = _place(rng, _SHAPES[shape], margin=1.0)
    canvas[inside] = np.where(_TEXTURES[texture](y, x)[..., None], *_two_colours(rng))[inside]
    image = resize(canvas.astype(np.uint8), SIDE, SIDE)
    noisy = image + rng.normal(scale=_NOISE, size=image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _ground(rng: np.random.Generator) -> Grid:
    """(canvas, canvas, 3) float32: colours that change slowly."""
    coarse = rng.uniform(40, 215, size=(3, 3, 3)).astype(np.float32)
    return np.asarray(
        cv2.resize(coarse, (_CANVAS, _CANVAS), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _two_colours(rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Two colours that differ by at least 90 grey levels in each channel, in either direction."""
    low = rng.uniform(0, 120, size=3).astype(np.float32)
    high = low + rng.uniform(90, 135, size=3).astype(np.float32)
    swap = rng.random() < 0.5
    return (high, low) if swap else (low, high)


def _place(
    rng: np.random.Generator, shape: Callable[[Grid, Grid], Mask], margin: float = 0.0
) -> tuple[Mask, Grid, Grid]:
    """Put a shape anywhere: its mask, and the image's pixels (y, x) from a random origin.

    With a ``margin`` of 1 the whole shape lies inside the image.
    """
    radius = rng.uniform(*_RADIUS)
    centre = rng.uniform(margin * radius, SIDE - margin * radius, size=2)
    grid = (np.arange(_CANVAS, dtype=np.float32) + 0.5) / _SCALE
    y, x = np.meshgrid(grid, grid, indexing="ij")
    inside = np.asarray(shape((y - centre[0]) / radius, (x - centre[1]) / radius), np.bool_)
    origin = rng.uniform(0, 12, size=2)
    return inside, y + origin[0], x + origin[1]


def _patch(y: Grid, x: Grid) -> Mask:
    """A slanted ellipse, no shape of a class."""
    return np.asarray(0.3 * (y + x) ** 2 + 1.6 * (y - x) ** 2 < 0.9, np.bool_)
