"""Data sets by name. Looking one up imports that one module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.datasets.layout import Layout
from sa_runtime.errors import bad_value
from sa_runtime.system import extensions

DATASETS: dict[str, str] = {
    "market": "sa_runtime.datasets.market:load_market",
    "duke": "sa_runtime.datasets.duke:load_duke",
    "cuhk03": "sa_runtime.datasets.cuhk03:load_cuhk03",
    "cuhk03-labelled": "sa_runtime.datasets.cuhk03:load_labelled",
    "cuhk03-detected": "sa_runtime.datasets.cuhk03:load_detected",
    "cuhk03-labelled-classic": "sa_runtime.datasets.cuhk03:load_labelled_classic",
    "cuhk03-detected-classic": "sa_runtime.datasets.cuhk03:load_detected_classic",
    "msmt17": "sa_runtime.datasets.msmt17:load_msmt17",
    "folder": "sa_runtime.datasets.folder:load_folder",
    "synthetic": "sa_runtime.datasets.market:load_synthetic",
}
ALIASES: dict[str, str] = {
    "market1501": "market",
    "dukemtmc": "duke",
    "cuhk03-labeled": "cuhk03-labelled",
}
LAYOUTS: dict[str, str] = {
    "market": "sa_runtime.datasets.market:LAYOUT",
    "duke": "sa_runtime.datasets.duke:LAYOUT",
    "cuhk03": "sa_runtime.datasets.cuhk03:LABELLED",
    "cuhk03-labelled": "sa_runtime.datasets.cuhk03:LABELLED",
    "cuhk03-detected": "sa_runtime.datasets.cuhk03:DETECTED",
    "cuhk03-labelled-classic": "sa_runtime.datasets.cuhk03:CLASSIC",
    "cuhk03-detected-classic": "sa_runtime.datasets.cuhk03:CLASSIC",
    "msmt17": "sa_runtime.datasets.msmt17:LAYOUT",
    "folder": "sa_runtime.datasets.folder:LAYOUT",
    "synthetic": "sa_runtime.datasets.market:SYNTHETIC_LAYOUT",
}
"""Where the layout of each data set is written down."""
RECOGNITION_ORDER = (
    "msmt17",
    "cuhk03-labelled",
    "cuhk03-detected",
    "cuhk03-labelled-classic",
    "market",
)
"""Data sets that are recognised by their layout, the most distinctive one first."""
_GROUP = extensions.DATASETS
"""Other data sets come from installed packages, as functions ``root -> ReidDataset``."""


def canonical(name: str) -> str:
    """The name in the table of a name or alias.

    Raises:
        InputError: an unknown name.

    >>> canonical("market1501")
    'market'
    """
    found = ALIASES.get(name, name)
    if found not in DATASETS and found not in (others := extensions.registered(_GROUP)):
        aliases = ", ".join(f"{alias} ({full})" for alias, full in ALIASES.items())
        own = f"; of installed packages: {', '.join(others)}" if others else ""
        rule = f"unknown; choose from {', '.join(DATASETS)}{own}; short: {aliases}"
        raise bad_value("dataset", name, rule)
    return found


def loader_of(name: str) -> Callable[..., ReidDataset]:
    """The function that loads a data set, whose name stands in a table.

    Raises:
        MissingPackageError: its package cannot be imported.
    """
    loader: Callable[..., ReidDataset] = (
        _looked_up(DATASETS[name])
        if name in DATASETS
        else extensions.loaded(extensions.registered(_GROUP)[name])
    )
    return loader


def layout_of(name: str) -> Layout:
    """How a data set is laid out.

    Raises:
        InputError: an unknown name, or a data set of another package, which says no layout.
    """
    found = canonical(name)
    if found not in LAYOUTS:
        rule = f"its package writes no layout down; choose from {', '.join(LAYOUTS)}"
        raise bad_value("dataset", name, rule)
    layout: Layout = _looked_up(LAYOUTS[found])
    return layout


def fitting(root: Path) -> str | None:
    """The data set whose layout a folder has, ``folder`` left out, which many things look like.

    Market-1501 stands for every data set that has its folders.
    """
    return next((name for name in RECOGNITION_ORDER if layout_of(name).fits(root)), None)


def _looked_up(entry: str) -> Any:
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)
