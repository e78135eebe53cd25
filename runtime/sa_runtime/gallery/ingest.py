"""How rows come into a gallery: all of them, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from sa_runtime.artefact.contract import require_same_space
from sa_runtime.errors import InputError, bad_value
from sa_runtime.gallery.rows import RowLabels, Where, gallery_rows, names_of
from sa_runtime.gallery.store import Store, noted
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.retrieval.vectors import VectorRows

Known = Literal["refuse", "replace", "add"]
"""What becomes of a source that the gallery holds already."""


def add_rows(
    store: Store, stored: Iterable[StoredEmbeddings], labels: RowLabels, known: Known
) -> int:
    """Add rows; see ``Gallery.add``."""
    if known not in get_args(Known):
        raise bad_value("known", known, f"expected one of {', '.join(get_args(Known))}")
    now = datetime.now(UTC)
    with store.changing() as manifest:
        there = set(names_of([segment.rows for segment in store.segments], "source"))
        again: set[str] = set()
        with store.writer() as writer:
            for part in stored:
                require_same_space(
                    manifest.contract.space,
                    part.contract.space,
                    names=(f"the gallery {store.path}", "what is added"),
                )
                rows = gallery_rows(part.rows, labels, now)
                again |= there & set(names_of([rows], "source"))
                if again and known == "refuse":
                    raise _is_known(store.path, sorted(again))
                # Refuses what is not finite.
                VectorRows(part.vectors, name="added")
                writer.write(rows, part.vectors)
        segments = manifest.segments
        if again and known == "replace":
            replaced = Where(source=tuple(sorted(again)))
            segments, removed = store.without(lambda segment: replaced.of(segment.rows))
            manifest = noted(manifest, "replaced", removed)
        added = tuple(writer.written)
        store.swap(dataclasses.replace(manifest, segments=(*segments, *added)))
    return sum(info.rows for info in added)


def _is_known(gallery: Path, sources: list[str]) -> InputError:
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return InputError(
        f"{sources[0]}{more}: in the gallery {gallery} already; pass `known='replace'` to "
        "put these rows in the place of those, or `known='add'` to keep both",
        parameter="known",
        value="refuse",
    )
