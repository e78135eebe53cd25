"""The MATLAB files of CUHK03.

``cuhk-03.mat`` is version 7.3, an HDF5 file, where every array lies transposed and a cell is a
reference: ``labeled`` and ``detected`` are one cell for each camera pair, that one of persons x 10
images (five of each view, some empty), ``testsets`` one cell of (pair, person) rows for each split.
The protocol files are version 5.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import DatasetError
from sa_runtime.system.extras import require

_PER_VIEW = 5


@dataclass(frozen=True, kw_only=True)
class NewProtocol:
    """What a protocol file says.

    Attributes:
        files: name of each image.
        persons: person of each image.
        train: images to train on, counted from 0.
        query: queries, counted from 0.
        gallery: gallery, counted from 0.
    """

    files: tuple[str, ...]
    persons: tuple[int, ...]
    train: tuple[int, ...]
    query: tuple[int, ...]
    gallery: tuple[int, ...]


def read_new_protocol(path: Path) -> NewProtocol:
    """Read ``cuhk03_new_protocol_config_*.mat``.

    Raises:
        DatasetError: it cannot be read, or lacks a field.
        MissingPackageError: scipy is not installed.
    """
    scipy_io = require("scipy.io", extra="train", purpose=f"reading {path.name}")
    try:
        fields = scipy_io.loadmat(str(path))
        files = tuple(str(np.ravel(cell)[0]) for cell in fields["filelist"].ravel())
        persons = tuple(int(label) for label in fields["labels"].ravel())
        indices = {
            name: tuple(int(i) - 1 for i in fields[f"{name}_idx"].ravel())
            for name in ("train", "query", "gallery")
        }
    except KeyError as exc:
        raise DatasetError(
            f"{path}: no field {exc.args[0]}; expected train_idx, query_idx, gallery_idx, labels "
            "and filelist. Download it again"
        ) from exc
    except Exception as exc:  # scipy raises what its parsers happen to meet
        raise DatasetError(
            f"{path}: cannot be read as a MATLAB file ({exc}); download it again"
        ) from exc
    highest = max((i for some in indices.values() for i in some), default=-1)
    lowest = min((i for some in indices.values() for i in some), default=-1)
    if len(persons) != len(files) or lowest < 0 or highest >= len(files):
        raise DatasetError(
            f"{path}: {len(files)} names, {len(persons)} labels and indices {lowest + 1} to "
            f"{highest + 1}, which do not fit together; download it again"
        )
    return NewProtocol(files=files, persons=persons, **indices)


def read_test_sets(path: Path) -> list[list[tuple[int, int]]]:
    """The classic protocol's test sets: (camera pair, person of the pair), both from 1.

    Raises:
        DatasetError: it cannot be read.
        MissingPackageError: h5py is not installed.
    """
    with _opened(path) as mat:
        return [
            [(int(pair), int(person)) for pair, person in _array(mat, cell)]
            for cell in mat["testsets"][0]
        ]


def unpack_images(path: Path, boxes: str, folder: Path) -> None:
    """Write the images of one kind of boxes as PNG, names as the images' loader reads them.

    The folder appears when it is complete; an interrupted run leaves nothing that is taken for it.

    Args:
        path: ``cuhk-03.mat``.
        boxes: ``labeled`` or ``detected``.
        folder: where to; it does not exist yet.

    Raises:
        DatasetError: the file cannot be read, or the folder not be written.
        MissingPackageError: h5py is not installed.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        with _opened(path) as mat:
            partial.mkdir()
            for name, image in _images(mat, boxes):
                _write(partial / name, image)
        try:
            partial.replace(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    except OSError as exc:
        raise DatasetError(
            f"{folder}: cannot unpack {path.name} into it ({exc}); free or allow the space, or "
            "copy cuhk-03.mat to a folder that can be written"
        ) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _images(mat: Any, boxes: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and (H, W, 3) uint8 RGB image of every cell that is not empty."""
    for pair, pair_cell in enumerate(mat[boxes][0], 1):
        for person, cells in enumerate(_array(mat, pair_cell), 1):
            for place, cell in enumerate(cells):
                image = _array(mat, cell)
                if image.ndim == 3 and image.size:
                    view = 1 if place < _PER_VIEW else 2
                    yield f"{pair}_{person:03d}_{view}_{place + 1:02d}.png", image


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    import cv2

    _, encoded = cv2.imencode(".png", image[..., ::-1])
    path.write_bytes(encoded.tobytes())


def _array(mat: Any, reference: Any) -> NDArray[Any]:
    """What a reference points to, in MATLAB's order of dimensions."""
    array: NDArray[Any] = mat[reference][()].T
    return array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = require("h5py", extra="train", purpose=f"reading {path.name}")
    try:
        mat = h5py.File(path, "r")
    except OSError as exc:
        raise DatasetError(
            f"{path}: cannot be read as a MATLAB 7.3 file ({exc}); unpack cuhk03_release.zip again"
        ) from exc
    with mat:
        try:
            yield mat
        except KeyError as exc:
            raise DatasetError(
                f"{path}: not the cuhk-03.mat of the release, which holds labeled, detected and "
                f"testsets ({exc}); unpack cuhk03_release.zip again"
            ) from exc
