"""Crops beside a gallery, as ``sa-deploy embed --crops`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sa_runtime.errors import MissingFileError
from sa_runtime.gallery.rows import Where


def crop_path(folder: Path, name: str) -> Path | None:
    """The file of a crop; ``None`` for a name that leads out of the folder."""
    path = folder / name
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def remove_crops(folder: Path, tables: Sequence[pa.Table], where: Where) -> int:
    """Remove the crops of the rows that are meant.

    Args:
        folder: that holds them.
        tables: rows of a gallery.
        where: which are meant.

    Returns:
        Files removed; one that is not there is none.

    Raises:
        MissingFileError: no such folder.
    """
    require_crops(folder)
    removed = 0
    for table in tables:
        meant = pa.array(np.flatnonzero(where.of(table)))
        for name in table["crop"].take(meant).to_pylist():
            path = None if name is None else crop_path(folder, name)
            if path is not None and path.is_file():
                path.unlink()
                removed += 1
    return removed


def require_crops(folder: Path) -> None:
    """Raise MissingFileError where a folder of crops is not there."""
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such folder; expected crops that `sa-deploy embed --crops` wrote",
            path=folder,
        )
