"""Adding to a gallery that may not be there yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import chain
from pathlib import Path

from sa_runtime.errors import InputError, bad_value
from sa_runtime.gallery.approximate import Method, OnIndex
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.ingest import Known, add_rows
from sa_runtime.gallery.manifest import MANIFEST, Manifest
from sa_runtime.gallery.rows import RowLabels
from sa_runtime.gallery.store import Store, check_target
from sa_runtime.outputs.base import StoredEmbeddings, StoredType


def add_to(
    path: Path | str,
    stored: Iterable[StoredEmbeddings],
    *,
    labels: RowLabels | None = None,
    known: Known = "refuse",
    keep: timedelta | None = None,
    dtype: StoredType | None = None,
    method: Method | None = None,
    on_index: OnIndex | None = None,
) -> tuple[Gallery, int]:
    """Add rows to the gallery in a folder, which is made where there is none.

    Args:
        path: the folder.
        stored: as for :meth:`Gallery.add`; the first decides the feature space of a new gallery.
        labels: what is said of all rows.
        known: what becomes of sources that the gallery holds.
        keep: how long rows are kept; a gallery that is there keeps its own where it is None.
        dtype: of a new gallery, float32 by default; one that is there has its own.
        method: of a new gallery, exact by default; likewise.
        on_index: as for :class:`Gallery`.

    Returns:
        The gallery, and rows added.

    Raises:
        InputError: nothing to add, another dtype or method than the gallery's, or as for
            :meth:`Gallery.create` and :meth:`Gallery.add`; no new gallery is left then.
        ContractError: vectors of another feature space.
    """
    path = Path(path)
    parts = iter(stored)
    if (path / MANIFEST).exists():
        gallery = Gallery(path, on_index=on_index)
        for name, asked, held in (
            ("dtype", dtype, gallery.dtype),
            ("method", method, gallery.method),
        ):
            if asked not in (None, held):
                raise bad_value(
                    name, asked, f"the gallery {path} is {held}; leave it out, or make another one"
                )
        added = gallery.add(parts, labels=labels, known=known)
        if keep is not None:
            gallery.set_keep(keep)
        return gallery, added
    check_target(path)
    first = next(parts, None)
    if first is None:
        raise InputError("nothing to add: expected at least one file of stored embeddings")
    new = Manifest.new(first.contract, dtype or "float32", method or "exact", keep)
    rows = chain([first], parts)
    store = Store(path, new=new)
    store.on_index = on_index
    added = add_rows(store, rows, labels or RowLabels(), known)
    gallery = Gallery(path, on_index=on_index)
    gallery.forget()
    return gallery, added
