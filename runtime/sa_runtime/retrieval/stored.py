"""Stored embeddings in place of a model: the images of a data set found by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.errors import InputError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.manifest import MANIFEST


def is_stored(path: Path) -> bool:
    """Whether a path is one of embeddings that ``sa-deploy embed`` wrote, by its name alone."""
    return path.suffix.lower() == ".parquet" or (path / MANIFEST).is_file()


class StoredImages:
    """Gives the stored vectors of image files, as a model would embed them.

    A row belongs to a file whose path it holds, or else to one whose path below the data set's
    folder ends its own (``query/0001_c1.jpg``), so that embeddings made elsewhere serve too.

    Args:
        stored: with a row for each image; rows of videos are passed over.
        root: folder of the data set.
        name: what the embeddings are called, for messages.
    """

    def __init__(self, stored: StoredEmbeddings, root: Path, *, name: str) -> None:
        sources = stored.rows["source"].to_pylist()
        still = stored.rows["frame"].is_null().to_numpy()
        self._vectors, self._name, self._root = stored.vectors, name, root
        self._rows = [row for row in range(len(sources)) if still[row]]
        self._parts = {row: PurePath(sources[row]).parts for row in self._rows}
        self._whole = {os.path.abspath(sources[row]): row for row in reversed(self._rows)}
        self._endings: dict[int, dict[tuple[str, ...], list[int]]] = {}

    def __call__(self, paths: Sequence[Path]) -> Embeddings:
        """(N, D) float32; row i is file i.

        Raises:
            InputError: a file without a row, or with several of different files.
        """
        rows = np.fromiter((self._row(path) for path in paths), np.int64, len(paths))
        found: Embeddings = self._vectors[rows]
        return found

    def _row(self, path: Path) -> int:
        whole = self._whole.get(os.path.abspath(path))
        if whole is not None:
            return whole
        inner = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        found = self._ending(len(inner.parts)).get(inner.parts, [])
        if len({self._parts[row] for row in found}) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{self._name}: rows {found[0]} and {found[1]} both end in {inner}; expected the "
                "embeddings of one data set"
            )
        raise InputError(
            f"{self._name}: no row of the image {inner}; embed the folders of queries and gallery "
            f"below {self._root}, whole"
        )

    def _ending(self, length: int) -> dict[tuple[str, ...], list[int]]:
        """Rows by the last parts of their path."""
        if length not in self._endings:
            index: dict[tuple[str, ...], list[int]] = {}
            for row in self._rows:
                index.setdefault(self._parts[row][-length:], []).append(row)
            self._endings[length] = index
        return self._endings[length]
