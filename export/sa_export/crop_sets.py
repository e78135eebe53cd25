"""Crops to calibrate on and to judge artefacts by, cut by the one crop code."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa_export.crop_set import CropSet, spread
from sa_runtime.crops import resize
from sa_runtime.datasets.base import Sample
from sa_runtime.datasets.market import FOLDERS, load_market
from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import IMAGE_SUFFIXES, images_below
from sa_runtime.outputs.manifest import MANIFEST
from sa_runtime.retrieval.labels import Labels

GENERATED = SyntheticConfig(
    seed=20_180, identities=26, cameras=4, images_per_camera=3, train_fraction=0.08,
    distractors=20, junk=0, videos=0, people_per_video=1,
)  # fmt: skip
"""The validation set where the user gives none: 24 people before 4 cameras, 308 crops."""
GENERATED_CALIBRATION = dataclasses.replace(
    GENERATED, seed=20_181, identities=22, train_fraction=0.91, images_per_camera=4
)
"""The calibration set where the user gives none: 20 other people, 320 crops."""


def validation_crops(
    folder: Path | None, *, height: int, width: int, limit: int | None = None
) -> CropSet:
    """Crops to compare an artefact and its network on.

    Args:
        folder: in the layout of Market-1501 (``query``, ``bounding_box_test``; names tell person
            and camera), or any folder of crops without labels, of which the first quarter is
            sought in the rest. ``None`` draws a small synthetic set.
        height: of the network's input.
        width: of the network's input.
        limit: take whole people, evenly spread over the ids, until this number of crops is reached.

    Raises:
        InputError: no such folder, or fewer than four crops in it.
    """
    if folder is None:
        return _generated_validation(height, width, limit)
    if all((folder / FOLDERS[split]).is_dir() for split in ("query", "gallery")):
        return _labelled(folder, height, width, limit, source=str(folder))
    return _unlabelled(folder, height, width, limit, source=str(folder))


def calibration_crops(folder: Path | None, *, height: int, width: int, limit: int = 512) -> CropSet:
    """Crops to calibrate quantisation on, without labels.

    Args:
        folder: of crops, searched with its subfolders; the training images where it is laid out
            like Market-1501. Or what ``sa-deploy embed`` wrote (a Parquet file, or a folder of
            shards), whose boxes are cut from their images and videos again. ``None`` draws a small
            synthetic set.
        height: of the network's input.
        width: of the network's input.
        limit: the largest number of crops, evenly spread over the sorted names or the rows.

    Raises:
        InputError: no such folder or file, fewer than four images in it, or images and videos that
            are no longer where they were embedded.
    """
    if folder is not None and (folder.suffix == ".parquet" or (folder / MANIFEST).is_file()):
        from sa_export.stored_crops import crops_of_rows  # pyarrow, which only this needs

        return crops_of_rows(folder, height=height, width=width, limit=limit)
    if folder is None:
        return _generated_calibration(height, width, limit)
    train = folder / FOLDERS["train"]
    searched = train if train.is_dir() else folder
    return _unlabelled(searched, height, width, limit, source=str(folder))


@lru_cache(maxsize=1)
def _generated_validation(height: int, width: int, limit: int | None) -> CropSet:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "validation"
        write_synthetic(root, GENERATED, workers=1)
        return _labelled(root, height, width, limit, source="generated")


@lru_cache(maxsize=1)
def _generated_calibration(height: int, width: int, limit: int) -> CropSet:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "calibration"
        write_synthetic(root, GENERATED_CALIBRATION, workers=1)
        return _unlabelled(root / FOLDERS["train"], height, width, limit, source="generated")


def _unlabelled(
    folder: Path, height: int, width: int, limit: int | None, *, source: str
) -> CropSet:
    found = _images_in(folder)
    paths = found if limit is None else spread(found, limit)
    if len(paths) < 4:
        raise InputError(
            f"{folder}: {len(paths)} images, expected at least 4 crops of people "
            f"({', '.join(IMAGE_SUFFIXES)})"
        )
    return CropSet(
        source=source,
        images=_cut(paths, height, width),
        names=tuple(str(path.relative_to(folder)) for path in paths),
        queries=len(paths) // 4,
    )


def _labelled(root: Path, height: int, width: int, limit: int | None, *, source: str) -> CropSet:
    dataset = load_market(root)
    query, gallery = dataset.query, dataset.gallery
    if limit is not None and limit < len(query) + len(gallery):
        query, gallery = _some_people(query, gallery, limit)
    samples = (*query, *gallery)
    labels = Labels(
        person=np.array([sample.person for sample in samples], np.int64),
        camera=np.array([sample.camera for sample in samples], np.int64),
    )
    return CropSet(
        source=source,
        images=_cut([sample.path for sample in samples], height, width),
        names=tuple(str(sample.path.relative_to(root)) for sample in samples),
        queries=len(query),
        labels=labels,
    )


def _some_people(
    query: Sequence[Sample], gallery: Sequence[Sample], limit: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Whole people, distractors counted as one, in the proportion of ``limit``."""
    samples = [sample for sample in (*query, *gallery) if sample.person > 0]
    persons = sorted({sample.person for sample in samples})
    wanted = max(2, limit * len(persons) // (len(query) + len(gallery)))
    kept = set(spread(persons, wanted))
    strangers = [sample for sample in gallery if sample.person not in persons]
    room = max(0, limit - sum(sample.person in kept for sample in samples))
    few = set(spread(strangers, room)) if room else set()
    return (
        tuple(sample for sample in query if sample.person in kept),
        tuple(s for s in gallery if s.person in kept or s in few),
    )


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such folder; expected a folder of crops of people", path=folder
        )
    return images_below(folder).paths


def _cut(paths: Sequence[Path], height: int, width: int) -> NDArray[np.uint8]:
    images = np.empty((len(paths), height, width, 3), np.uint8)
    for path, out in zip(paths, images, strict=True):
        resize(read_image(path), height, width, out=out)
    return images
