"""Market-1501 and every data set that is laid out like it.

``ROOT/{bounding_box_train,query,bounding_box_test}/0002_c1s1_000451_03.jpg``: person, camera
from 1, sequence, frame, box. Person -1 is junk and dropped, person 0 a distractor and kept.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sa_runtime.datasets.base import JUNK, ReidDataset, Sample, Split, image_files
from sa_runtime.datasets.layout import Layout, no_images, require_layout
from sa_runtime.errors import DatasetError

FOLDERS: dict[Split, str] = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
}
OTHER_NAMES = {"bounding_box_train": ("train",), "bounding_box_test": ("test", "gallery")}
LAYOUT = Layout(title="Market-1501", forms=(tuple(FOLDERS.values()),), other_names=OTHER_NAMES)
SYNTHETIC_LAYOUT = replace(LAYOUT, title="synthetic data in the layout of Market-1501")
SYNTHETIC_RECORD = "synthetic.json"
"""The file by which ``sa-deploy data synth`` marks what it wrote."""
_NAME = re.compile(r"(-?\d+)_c(\d+)")


def load_market(root: Path) -> ReidDataset:
    """Market-1501.

    Args:
        root: the folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``.

    Raises:
        DatasetError: another layout, a split without images, or a name that does not tell person
            and camera.
    """
    return load_market_layout("market", root, LAYOUT)


def load_synthetic(root: Path) -> ReidDataset:
    """What ``sa-deploy data synth`` writes, in the layout of Market-1501.

    Raises:
        DatasetError: as :func:`load_market`.
    """
    return load_market_layout("synthetic", root, SYNTHETIC_LAYOUT)


def load_market_layout(name: str, root: Path, layout: Layout) -> ReidDataset:
    """The three folders of Market-1501 under any name; junk is dropped.

    Raises:
        DatasetError: as :func:`load_market`.
    """
    require_layout(root, layout)
    splits = {split: kept(root / folder) for split, folder in FOLDERS.items()}
    return ReidDataset(name=name, root=root, **splits)


def scan(folder: Path) -> list[Sample]:
    """Every image of one split folder, junk included, sorted by name.

    Raises:
        DatasetError: a name that does not tell person and camera.
    """
    return [_sample(path) for path in image_files(folder)]


def kept(folder: Path) -> tuple[Sample, ...]:
    """The images of one split folder without junk.

    Raises:
        DatasetError: as :func:`scan`, or there are no images.
    """
    samples = scan(folder)
    if not samples:
        raise no_images(folder)
    return tuple(sample for sample in samples if sample.person != JUNK)


def _sample(path: Path) -> Sample:
    match = _NAME.search(path.name)
    if match is None or int(match[2]) < 1:
        raise DatasetError(
            f"{path}: the name does not tell person and camera (from 1); expected a name like "
            "0002_c1s1_000451_03.jpg (person 2, camera 1). Rename the file or take it out"
        )
    return Sample(path, int(match[1]), int(match[2]) - 1)
