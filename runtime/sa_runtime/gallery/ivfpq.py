"""IVF-PQ by faiss: rows in lists of near ones, each as a few bytes.

The codes are too coarse to rank by, so that several times as many rows are taken from them as are
wanted, and compared with the stored vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.gallery.scan import Part
from sa_runtime.retrieval.vectors import Floats, Ints
from sa_runtime.system.extras import require

FILE = "lists.faiss"
LEAST_ROWS = 10_000
"""So many teach the 256 codes of a part of a vector."""
_CODE_NUMBERS = 8
"""Numbers of a vector that share a byte, where its size allows."""
_ROWS_A_LIST, _PROBED = 100, 1 / 8
_TAKEN = 16
"""Candidates for each neighbour wanted."""
_TRAINED = 50_000


def check() -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    _faiss()


def new(part: Part, rows: Ints) -> Lists:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    faiss = _faiss()
    dim = part.vectors.shape[1]
    sample = np.random.default_rng(0).permutation(rows)[:_TRAINED]
    # faiss wants 39 rows for each list that it learns.
    lists = max(1, min(int(np.sqrt(len(rows)) * 4), len(rows) // _ROWS_A_LIST, len(sample) // 39))
    codes = max(n for n in range(1, max(1, dim // _CODE_NUMBERS) + 1) if dim % n == 0)
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(dim), dim, lists, codes, 8)
    index.train(np.asarray(part.vectors[np.sort(sample)], np.float32))
    return Lists(index)


def opened(path: Path) -> Lists:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    faiss = _faiss()
    return Lists(faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))


class Lists:
    """See :class:`sa_runtime.gallery.approximate.Index`.

    Args:
        lists: of faiss.
    """

    def __init__(self, lists: Any) -> None:
        self._lists = lists

    def add(self, rows: Ints, vectors: Floats) -> None:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        self._lists.add_with_ids(vectors, rows)

    def candidates(self, query: Floats, k: int) -> Ints:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        self._lists.nprobe = max(1, int(self._lists.nlist * _PROBED))
        wanted = min(_TAKEN * k, self._lists.ntotal)
        found: Ints = self._lists.search(np.ascontiguousarray(query), wanted)[1]
        return found.astype(np.int64)

    def save(self, path: Path) -> None:
        """See :class:`sa_runtime.gallery.approximate.Index`."""
        _faiss().write_index(self._lists, str(path))


def _faiss() -> Any:
    return require("faiss", extra="faiss", purpose="the method 'ivfpq' of a gallery")
