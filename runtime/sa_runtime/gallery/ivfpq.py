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
_TRAINED, _ADDED = 50_000, 16_384


def check() -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    _faiss()


def build(path: Path, part: Part) -> None:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    faiss = _faiss()
    rows, dim = part.vectors.shape
    sample = np.random.default_rng(0).permutation(rows)[:_TRAINED]
    # faiss wants 39 rows for each list that it learns.
    lists = max(1, min(int(np.sqrt(rows) * 4), rows // _ROWS_A_LIST, len(sample) // 39))
    codes = max(n for n in range(1, max(1, dim // _CODE_NUMBERS) + 1) if dim % n == 0)
    quantiser = faiss.IndexFlatL2(dim)
    index = faiss.IndexIVFPQ(quantiser, dim, lists, codes, 8)
    index.train(np.asarray(part.vectors[np.sort(sample)], np.float32))
    for start in range(0, rows, _ADDED):
        index.add(np.asarray(part.vectors[start : start + _ADDED], np.float32))
    faiss.write_index(index, str(path))


def candidates(path: Path, query: Floats, k: int) -> Ints:
    """See :class:`sa_runtime.gallery.approximate.Kind`."""
    faiss = _faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    index.nprobe = max(1, int(index.nlist * _PROBED))
    found: Ints = index.search(np.ascontiguousarray(query), min(_TAKEN * k, index.ntotal))[1]
    return found.astype(np.int64)


def _faiss() -> Any:
    return require("faiss", extra="faiss", purpose="the method 'ivfpq' of a gallery")
