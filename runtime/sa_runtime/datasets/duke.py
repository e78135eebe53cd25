"""DukeMTMC-reID, for those who hold a copy: its makers withdrew it in 2019.

The folders of Market-1501, with names like ``0001_c2_f0046182.jpg``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.datasets.layout import Layout
from sa_runtime.datasets.market import FOLDERS, OTHER_NAMES, kept, load_market_layout

CAMSTYLE = "bounding_box_train_camstyle"
LAYOUT = Layout(title="DukeMTMC-reID", forms=(tuple(FOLDERS.values()),), other_names=OTHER_NAMES)


def load_duke(root: Path, *, camstyle: bool = False) -> ReidDataset:
    """DukeMTMC-reID.

    Args:
        root: the folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``.
        camstyle: also train on the images of ``bounding_box_train_camstyle``, copies of the
            training images in the style of other cameras, which come after the others. The
            authors' loader scans that folder, their training does not use it.

    Raises:
        DatasetError: another layout, a split without images, or a name that does not tell person
            and camera.
    """
    dataset = load_market_layout("duke", root, LAYOUT)
    if not camstyle:
        return dataset
    return replace(dataset, train=dataset.train + kept(root / CAMSTYLE))
