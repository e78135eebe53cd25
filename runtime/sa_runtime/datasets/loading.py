"""Data sets loaded by name: one, or several joined into one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.datasets.recognise import recognise
from sa_runtime.datasets.table import ALIASES, LAYOUTS, canonical, fitting, layout_of, loader_of
from sa_runtime.errors import DatasetError, InputError


def named(name: str, root: Path) -> str:
    """The name in the table of a name, or of what lies in the folder where the name is ``auto``.

    Raises:
        InputError: an unknown name.
        DatasetError: no data set is recognised.
    """
    if name != "auto":
        return canonical(name)
    return recognise(root)


def load_dataset(name: str, root: Path | str, **options: Any) -> ReidDataset:
    """Load a data set.

    Args:
        name: a name of :data:`DATASETS` or :data:`ALIASES`, or ``auto`` to recognise it.
        root: its folder.
        options: passed to its loader.

    Raises:
        InputError: an unknown name or option.
        DatasetError: the folder is not that data set; the message names the path to pass.
        MissingPackageError: its files need a package that is not installed.
    """
    found = named(name, Path(root))
    loader = loader_of(found)
    known = [option for option in inspect.signature(loader).parameters if option != "root"]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"data set {name}: unknown option {', '.join(unknown)}; "
            f"expected {', '.join(known) or 'none'}"
        )
    try:
        return loader(Path(root), **options)
    except DatasetError as exc:
        if found not in LAYOUTS:
            raise
        layout, folder = layout_of(found), Path(root)
        other = None if layout.fits(folder) else fitting(folder)
        if other is None or layout.above(folder) or layout.share(folder) >= 0.5:
            raise
        title = layout_of(other).title
        raise DatasetError(f"{exc}. It is laid out as {title}; pass `dataset={other!r}`") from exc


def load_datasets(names: str | Sequence[str], roots: str | Path | Sequence[Path]) -> ReidDataset:
    """Load one data set, or several joined into one for training.

    Persons and cameras of different data sets stay apart: each data set's are shifted past those
    of the ones before it.

    Args:
        names: names, as a sequence or separated by commas (``market,cuhk03-labelled``).
        roots: as many folders, in the same order, as a sequence or separated by commas; or, for
            several names, one folder that holds each data set in a folder of its name.

    Raises:
        InputError: an unknown name, or another number of folders than names.
        DatasetError: as :func:`load_dataset`.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip() for name in wanted]
    folders = folders_of(roots, wanted)
    loaded = [load_dataset(name, root) for name, root in zip(wanted, folders, strict=True)]
    return loaded[0] if len(loaded) == 1 else join(loaded)


def join(datasets: Sequence[ReidDataset]) -> ReidDataset:
    """Several data sets as one, with persons and cameras that stay apart."""
    splits: dict[str, list[Sample]] = {"train": [], "query": [], "gallery": []}
    persons = cameras = 0
    for dataset in datasets:
        samples = (*dataset.train, *dataset.query, *dataset.gallery)
        for split, joined in splits.items():
            joined += (
                replace(s, person=s.person + persons, camera=s.camera + cameras)
                for s in getattr(dataset, split)
            )
        persons += 1 + max((sample.person for sample in samples), default=-1)
        cameras += 1 + max((sample.camera for sample in samples), default=-1)
    return ReidDataset(
        name=",".join(dataset.name for dataset in datasets),
        root=datasets[0].root,
        train=tuple(splits["train"]),
        query=tuple(splits["query"]),
        gallery=tuple(splits["gallery"]),
    )


def folders_of(roots: str | Path | Sequence[Path], names: Sequence[str]) -> list[Path]:
    """A folder for each data set, as :func:`load_datasets` takes them.

    Raises:
        InputError: another number of folders than names.
    """
    if not isinstance(roots, str | Path):
        folders = [Path(root) for root in roots]
    elif len(names) == 1 or Path(roots).is_dir():
        folders = [Path(roots)]
    else:
        folders = [Path(part.strip()) for part in str(roots).split(",")]
    if len(folders) == 1 and len(names) > 1:
        folders = [_child(folders[0], name) for name in names]
    if len(folders) != len(names):
        raise InputError(
            f"{len(folders)} folders for {len(names)} data sets ({', '.join(names)}): expected one "
            "folder for each, separated by commas in the same order, or one that holds them all"
        )
    return folders


def _child(parent: Path, name: str) -> Path:
    """The folder of a data set in the folder that holds several."""
    full = canonical(name)
    names = [name, full, *(alias for alias, found in ALIASES.items() if found == full)]
    for candidate in names:
        if (parent / candidate).is_dir():
            return parent / candidate
    raise InputError(
        f"{parent}: no folder {' or '.join(dict.fromkeys(names))} in it for the data set {name}; "
        "rename or link its folder so, or give one folder for each data set, separated by commas"
    )
