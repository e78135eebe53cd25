"""Plain folders: one sub-folder for each person.

Either ``ROOT/{train,query,gallery}/PERSON/*.jpg``, or ``ROOT/PERSON/*.jpg``, where every image is
query and gallery.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from sa_runtime.datasets.base import (
    JUNK,
    SPLITS,
    ReidDataset,
    Sample,
    Split,
    image_files,
    subfolders,
)
from sa_runtime.datasets.layout import Layout, no_images, require_layout, spelt
from sa_runtime.errors import DatasetError

_FOREIGN = (
    "bounding_box_train",
    "bounding_box_test",
    "mask_train_v2",
    "mask_test_v2",
    "images_labeled",
    "images_detected",
)
"""Folders of other data sets, which are not persons."""
_CAMERA = re.compile(r"_c(\d+)")


@dataclass(frozen=True, kw_only=True)
class FolderLayout(Layout):
    """One sub-folder for each person, under the names of the splits or directly."""

    @property
    def expected(self) -> str:
        """Both forms in words."""
        return "PERSON/*.jpg of two persons or more, or train, query and gallery with such folders"

    def fits(self, root: Path) -> bool:
        """Whether persons' folders are where they should be."""
        if splits := _splits(root):
            paired = ("query" in splits) == ("gallery" in splits)
            return paired and all(_has_persons(root / split) for split in splits)
        if root.name in SPLITS and len(_splits(root.parent)) > 1:
            return False
        foreign = any((root / name).is_dir() for name in _FOREIGN)
        return not foreign and _has_persons(root, at_least=2)

    def above(self, root: Path) -> Path | None:
        """The root, where the folder given is a split or a person."""
        parents = list(root.absolute().parents)
        if _splits(parents[0]) and root.name in SPLITS:
            return spelt(root, 0) if self.fits(parents[0]) else None
        if not image_files(root):
            return None
        if parents[0].name in SPLITS and self.fits(parents[1]):
            return spelt(root, 1)
        return spelt(root, 0) if self.fits(parents[0]) else None

    def share(self, root: Path) -> float:
        """All but a split where one has persons' folders."""
        return 0.5 if any(_has_persons(root / split) for split in _splits(root)) else 0.0

    def incomplete(self, root: Path) -> str | None:
        """Half of a test, or images that are not sorted into persons' folders."""
        splits = _splits(root)
        for split, other in (("query", "gallery"), ("gallery", "query")):
            if split in splits and other not in splits:
                return f"{root}: {split} without {other}; put the other half into {root / other}"
        for folder in [root / split for split in splits] or [root]:
            if image_files(folder):
                return (
                    f"{folder}: images directly in it; put those of each person into a folder "
                    f"of its own, {folder / 'PERSON'}"
                )
            if splits and not _has_persons(folder):
                return f"{folder}: no persons' folders with images in it; fill or remove it"
        return None


LAYOUT = FolderLayout(title="a data set of persons' folders", forms=(("query", "gallery"),))


def load_folder(root: Path) -> ReidDataset:
    """A data set of one folder for each person.

    The person is the folder's name where all are whole numbers (-1 is dropped as junk), else the
    place of the name among all names in order, from 1. The camera is the number after ``_c`` in
    the file names, from 1, where all images of query and gallery have one. Where they have none,
    queries are camera 0 and the gallery is camera 1; and without splits each image of a person is
    a camera of its own, so that every image is sought among all others.

    Args:
        root: holds ``train``, ``query`` and ``gallery`` (``train`` alone or without it, too), or
            the persons' folders.

    Raises:
        DatasetError: another layout.
    """
    require_layout(root, LAYOUT)
    splits = _splits(root)
    train, query, gallery = _of_splits(root, splits) if splits else _of_all(root)
    return ReidDataset(
        name="folder", root=root, train=_kept(train), query=_kept(query), gallery=_kept(gallery)
    )


def _of_splits(root: Path, splits: list[Split]) -> tuple[tuple[Sample, ...], ...]:
    found = {split: _images(root / split) for split in splits}
    persons = _persons(root, {name for images in found.values() for name, _ in images})
    cameras: dict[Split, int] = {"train": 0, "query": 0, "gallery": 1}
    train, query, gallery = (
        [Sample(path, persons[name], cameras[split]) for name, path in found.get(split, [])]
        for split in SPLITS
    )
    test = _with_cameras(query + gallery)
    return _with_cameras(train), test[: len(query)], test[len(query) :]


def _of_all(root: Path) -> tuple[tuple[Sample, ...], ...]:
    images = _images(root)
    persons = _persons(root, {name for name, _ in images})
    seen: Counter[str] = Counter()
    samples = []
    for name, path in images:
        samples.append(Sample(path, persons[name], seen[name]))
        seen[name] += 1
    test = _with_cameras(samples)
    return (), test, test


def _splits(root: Path) -> list[Split]:
    return [split for split in SPLITS if (root / split).is_dir()]


def _has_persons(folder: Path, at_least: int = 1) -> bool:
    for inner in subfolders(folder):
        at_least -= bool(image_files(inner))
        if not at_least:
            return True
    return False


def _images(folder: Path) -> list[tuple[str, Path]]:
    images = [(inner.name, path) for inner in subfolders(folder) for path in image_files(inner)]
    if not images:
        raise no_images(folder)
    return images


def _persons(root: Path, names: set[str]) -> dict[str, int]:
    """Person of each folder's name."""
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        numbers = {name: int(name) for name in sorted(names)}
        first: dict[int, str] = {}
        for name, number in numbers.items():
            if (other := first.setdefault(number, name)) != name:
                raise DatasetError(
                    f"{root}: the folders {other} and {name} are one number; "
                    "write a person's number the same way everywhere"
                )
        return numbers
    return {name: place for place, name in enumerate(sorted(names), 1)}


def _with_cameras(samples: list[Sample]) -> tuple[Sample, ...]:
    """The samples with the cameras that their names tell, where all tell one."""
    found = [_CAMERA.search(sample.path.name) for sample in samples]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(numbers) < len(samples) or min(numbers, default=1) < 1:
        return tuple(samples)
    return tuple(
        replace(sample, camera=number - 1) for sample, number in zip(samples, numbers, strict=True)
    )


def _kept(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if sample.person != JUNK)
