"""Which data set lies in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from sa_runtime.datasets import cifar100
from sa_runtime.datasets.base import image_files, subfolders
from sa_runtime.datasets.layout import Fault, contents, diagnose, refusal, unusable_folder
from sa_runtime.datasets.market import SYNTHETIC_RECORD
from sa_runtime.datasets.table import RECOGNITION_ORDER, fitting, layout_of

_MARKET = "Market-1501 with bounding_box_train, query and bounding_box_test"
_HALF = 0.5
"""With this much of another data set a folder is that one, damaged, and not ``folder``."""
_DUKE_NAME = re.compile(r"_c\d+_f\d+")


def recognise(root: Path) -> str:
    """Name of the data set that lies in a folder.

    Data sets with the folders of Market-1501 are told apart by their file names (DukeMTMC-reID) and
    by the file that ``sa-deploy data synth`` leaves.

    Raises:
        MissingFileError: there is no such folder.
        DatasetError: none does; the message names the path to pass, or what is missing.
    """
    found = fitting(root)
    if found is None:
        if not _is_part(root) and layout_of("folder").fits(root):
            return "folder"
        raise refusal(root, _unrecognised(root))
    if found != "market":
        return found
    if (root / SYNTHETIC_RECORD).is_file():
        return "synthetic"
    images = image_files(root / "query")
    return "duke" if images and _DUKE_NAME.search(images[0].name) else "market"


def _is_part(root: Path) -> bool:
    """Whether a folder is a part of a data set recognised by its layout, or a damaged one."""
    layouts = [layout_of(name) for name in RECOGNITION_ORDER]
    return any(layout.above(root) or layout.share(root) >= _HALF for layout in layouts)


def _unrecognised(root: Path) -> str:
    """The message of the data set that the folder comes nearest to."""
    if (unusable := unusable_folder(root, f"a data set, for example {_MARKET}")) is not None:
        return unusable
    if any(cifar100.is_cifar100(inner) for inner in subfolders(root)):
        return diagnose(root, cifar100.LAYOUT)[1]
    names = RECOGNITION_ORDER if _is_part(root) else (*RECOGNITION_ORDER, "folder")
    found = {name: diagnose(root, layout_of(name)) for name in names}
    nearest = min(names, key=lambda name: (found[name][0], -layout_of(name).share(root)))
    fault, message = found[nearest]
    if fault is not Fault.OTHER:
        return message
    return (
        f"{root}: no data set that is known: it holds {contents(root)}; expected for example "
        f"{_MARKET}, or another layout of docs/guide/datasets.md"
    )
