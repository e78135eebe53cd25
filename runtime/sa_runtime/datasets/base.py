"""What a re-identification data set is: three lists of labelled images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sa_runtime.image_files import is_image

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")
JUNK = -1
"""Person of images that Market-1501 marks as junk; the loaders drop them."""
DISTRACTOR = 0
"""Person of Market-1501's distractors, which stay in the gallery and match no query."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        path: the image file.
        person: the id of the data set, equal for images of one person in every split.
        camera: counted from 0.
    """

    path: Path
    person: int
    camera: int


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """How much one split holds; ``persons`` counts each id once, a distractor id included."""

    images: int
    persons: int
    cameras: int


@dataclass(frozen=True, kw_only=True)
class ReidDataset:
    """Training images, queries, and the gallery they are sought in.

    It never changes, so that threads may share it.

    Attributes:
        name: as it stands in the table.
        root: the folder it was read from.
        train: training images, in the sorted order of their names.
        query: queries; each is a search for its person under other cameras.
        gallery: what is searched, distractors included.
    """

    name: str
    root: Path
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of a split by its name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}[name]

    def train_labels(self) -> NDArray[np.int64]:
        """(N,) int64 class of every training image: 0..K-1 in order of first appearance.

        >>> one, two = Sample(Path("a.jpg"), 7, 0), Sample(Path("b.jpg"), 2, 0)
        >>> ReidDataset(name="x", root=Path(), train=(one, two, one), query=(), gallery=()
        ...             ).train_labels().tolist()
        [0, 1, 0]
        """
        labels: dict[int, int] = {}
        return np.array(
            [labels.setdefault(sample.person, len(labels)) for sample in self.train], np.int64
        )

    def counts(self) -> dict[Split, SplitCounts]:
        """Images, persons and cameras of each split."""
        return {name: count(self.split(name)) for name in SPLITS}


def count(samples: Sequence[Sample]) -> SplitCounts:
    """Images, persons and cameras of some samples."""
    return SplitCounts(
        images=len(samples),
        persons=len({sample.person for sample in samples}),
        cameras=len({sample.camera for sample in samples}),
    )


def persons_of(samples: Iterable[Sample]) -> NDArray[np.int64]:
    """(N,) int64 persons."""
    return np.fromiter((sample.person for sample in samples), np.int64)


def cameras_of(samples: Iterable[Sample]) -> NDArray[np.int64]:
    """(N,) int64 cameras, from 0."""
    return np.fromiter((sample.camera for sample in samples), np.int64)


def image_files(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_image(entry.name))
    return [folder / name for name in names]


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted by name, hidden ones left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return [folder / name for name in names]
