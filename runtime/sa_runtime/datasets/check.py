"""What a data set holds, next to what its makers published, and what is wrong with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa_runtime.datasets.base import (
    DISTRACTOR,
    JUNK,
    SPLITS,
    ReidDataset,
    Split,
)
from sa_runtime.datasets.images import image_fault
from sa_runtime.datasets.loading import load_dataset, named
from sa_runtime.datasets.market import FOLDERS, scan
from sa_runtime.datasets.published import PUBLISHED, Published
from sa_runtime.datasets.table import layout_of
from sa_runtime.image_files import has_image_suffix

_log = logging.getLogger(__name__)

_COPY = re.compile(r" \(\d+\)\.|^Copy of | - Copy\b")
_NOT_IMAGES = {"thumbs.db", "desktop.ini", "readme.txt", "readme.md", "license.txt"}
_MARKET_LIKE = ("market", "duke", "synthetic")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split of a data set.

    Attributes:
        images: how many are used.
        persons: ids, a distractor id included.
        cameras: cameras.
        junk: images that the data set marks as junk, which are not used.
        distractors: images of nobody (person 0 of Market-1501), which are used.
        published: what the makers say, where there is such a statement.
    """

    images: int
    persons: int
    cameras: int
    junk: int
    distractors: int
    published: Published | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "images": self.images,
            "ids": self.persons,
            "cameras": self.cameras,
            "junk": self.junk,
            "distractors": self.distractors,
            "published": None if self.published is None else self.published._asdict(),
        }


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What :func:`check_dataset` found.

    Attributes:
        dataset: name in the table.
        title: its full name.
        root: the folder.
        splits: by name.
        unreadable: images that cannot be read, and why.
        problems: what makes results wrong, as sentences.
        notes: what is worth knowing, as sentences.
    """

    dataset: str
    title: str
    root: Path
    splits: dict[Split, SplitReport]
    unreadable: tuple[tuple[Path, str], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "title": self.title,
            "root": str(self.root),
            "usable": not self.unreadable,
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "unreadable": [{"path": str(path), "fault": fault} for path, fault in self.unreadable],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def check_dataset(
    root: Path,
    name: str = "auto",
    *,
    decode: bool = False,
    advance: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DatasetReport:
    """Load a data set and look at every image.

    Args:
        root: its folder.
        name: a name of the table, or ``auto`` to recognise it.
        decode: decode every image; otherwise only the first and last bytes are looked at, which
            finds empty, cut off and foreign files.
        advance: called with images done and images in all.
        options: passed to the loader.

    Raises:
        InputError: an unknown name or option.
        DatasetError: the folder cannot be used; the message names the path to pass.
    """
    found = named(name, root)
    _log.info("%s: read as %s", root, found)
    dataset = load_dataset(found, root, **options)
    reports = {split: _split_report(dataset, split) for split in SPLITS}
    return DatasetReport(
        dataset=dataset.name,
        title=layout_of(found).title,
        root=root,
        splits=reports,
        unreadable=tuple(_unreadable(_paths(dataset), decode, advance)),
        problems=(*_without_match(dataset), *_trained_and_tested(dataset), *_copies(dataset)),
        notes=(*_differences(reports), *_foreign_files(dataset)),
    )


def _split_report(dataset: ReidDataset, split: Split) -> SplitReport:
    counts = dataset.counts()[split]
    samples = dataset.split(split)
    junk = distractors = 0
    if dataset.name in _MARKET_LIKE:
        junk = sum(sample.person == JUNK for sample in scan(dataset.root / FOLDERS[split]))
        distractors = sum(sample.person == DISTRACTOR for sample in samples)
    return SplitReport(
        images=counts.images,
        persons=counts.persons,
        cameras=counts.cameras,
        junk=junk,
        distractors=distractors,
        published=PUBLISHED.get(dataset.name, {}).get(split),
    )


def _paths(dataset: ReidDataset) -> list[Path]:
    """Every image once."""
    return list(dict.fromkeys(s.path for split in SPLITS for s in dataset.split(split)))


def _unreadable(
    paths: list[Path], decode: bool, advance: Callable[[int, int], None] | None
) -> Iterable[tuple[Path, str]]:
    for done, path in enumerate(paths, 1):
        if (fault := image_fault(path, decode=decode)) is not None:
            yield path, fault
        if advance is not None:
            advance(done, len(paths))


def _without_match(dataset: ReidDataset) -> Iterable[str]:
    """Queries whose person no other camera of the gallery saw: the metrics leave them out."""
    seen_by: dict[int, set[int]] = {}
    for sample in dataset.gallery:
        seen_by.setdefault(sample.person, set()).add(sample.camera)
    alone = [
        sample.path.name
        for sample in dataset.query
        if not seen_by.get(sample.person, set()) - {sample.camera}
    ]
    if alone:
        yield (
            f"{len(alone)} of {len(dataset.query)} queries have no match under another camera and "
            f"are left out of the metrics: {_some(alone)}"
        )


def _trained_and_tested(dataset: ReidDataset) -> Iterable[str]:
    tested = {sample.person for sample in (*dataset.query, *dataset.gallery)}
    both = sorted({sample.person for sample in dataset.train} & tested)
    if both:
        yield (
            f"{len(both)} ids are in train and in test, which flatters the metrics: "
            f"{_some([str(person) for person in both])}"
        )


def _copies(dataset: ReidDataset) -> Iterable[str]:
    copies = [path.name for path in _paths(dataset) if _COPY.search(path.name)]
    if copies:
        yield (
            f"{len(copies)} images are named like copies that Windows made, and count twice where "
            f"the original is there; delete or rename them: {_some(copies)}"
        )


def _differences(reports: dict[Split, SplitReport]) -> Iterable[str]:
    for split, report in reports.items():
        if (published := report.published) is None:
            continue
        for what, found, stated in (
            ("images", report.images, published.images),
            ("ids", report.persons, published.persons),
        ):
            if stated is not None and found != stated:
                yield f"{split}: {found:,} {what}, published are {stated:,}"


def _foreign_files(dataset: ReidDataset) -> Iterable[str]:
    """Files beside the images that no loader takes for images."""
    for folder in dict.fromkeys(path.parent for path in _paths(dataset)):
        foreign = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_file()
            and not entry.name.startswith(".")
            and not has_image_suffix(entry.name)
            and entry.name.lower() not in _NOT_IMAGES
        )
        if foreign:
            yield f"{folder}: {len(foreign)} files are not images and are passed over: " + (
                _some(foreign)
            )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
