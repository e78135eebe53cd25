"""MSMT17, versions 1 and 2.

``ROOT/{train,test}/0000/0000_000_01_0303morning_0015_0.jpg`` (version 2: ``mask_train_v2`` and
``mask_test_v2``): person, image, camera from 1, time, frame, box. Lists name the images of each
split and their persons.
"""

from __future__ import annotations

import re
from pathlib import Path

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.datasets.layout import Layout, require_layout
from sa_runtime.errors import DatasetError, MissingFileError, shown

_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
_VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
LAYOUT = Layout(title="MSMT17", forms=tuple((*folders, *_LISTS) for folders in _VERSIONS))
_NAME = re.compile(r"-?\d+_\d+_(\d+)_")


def load_msmt17(root: Path, *, validation: bool = True) -> ReidDataset:
    """MSMT17.

    Training and test persons are numbered from 0 both, though they are different people: the test
    ids are shifted past the training ids.

    Args:
        root: the folder with the images' folders and the four lists (``MSMT17_V1``).
        validation: train on the images of ``list_val.txt`` too: 32,621 of 1,041 persons, as the
            makers count them; without, 30,248.

    Raises:
        DatasetError: another layout, a line of a list that cannot be read, or lists that name
            images which are not there.
    """
    require_layout(root, LAYOUT)
    train_folder, test_folder = next(
        folders for folders in _VERSIONS if all((root / folder).exists() for folder in folders)
    )
    train = _listed(root, "list_train.txt", train_folder)
    held_out = _listed(root, "list_val.txt", train_folder)
    shift = 1 + max(sample.person for sample in train + held_out)
    return ReidDataset(
        name="msmt17",
        root=root,
        train=train + held_out if validation else train,
        query=_listed(root, "list_query.txt", test_folder, shift),
        gallery=_listed(root, "list_gallery.txt", test_folder, shift),
    )


def _listed(root: Path, name: str, folder: str, shift: int = 0) -> tuple[Sample, ...]:
    lines = (root / name).read_text(encoding="utf-8").splitlines()
    samples = tuple(
        _sample(root / folder, line, f"{root / name}:{number}", shift)
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    if not samples:
        raise DatasetError(f"{root / name}: the list is empty; copy or unpack the data set again")
    if not samples[0].path.is_file():
        raise MissingFileError(
            f"{samples[0].path}: no such file, though {name} names it; "
            f"unpack the images into {root / folder}",
            path=samples[0].path,
        )
    return samples


def _sample(folder: Path, line: str, where: str, shift: int) -> Sample:
    image, _, person = line.strip().rpartition(" ")
    match = _NAME.match(image.rpartition("/")[2])
    if match is None or not person.isdigit() or int(match[1]) < 1:
        raise DatasetError(
            f"{where}: {shown(line.strip())}; expected an image with its camera as third number "
            "and the person, like '0000/0000_000_01_0303morning_0015_0.jpg 0'. Copy the list again"
        )
    return Sample(folder / image, int(person) + shift, int(match[1]) - 1)
