"""What is searched for: a track of the gallery, image files, or stored vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.artefact.contract import Contract, require_same_space
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.gallery.databases import DatabaseGallery
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.retrieval.vectors import Floats

_RANGES = 8
"""So many ranges of tracks are listed in a message."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
        vectors: (Q, D) float32, rows of unit length.
        contract: of the model that made them.
        names: Q texts that say which query each is.
        rows: for each query what is known of where it comes from; empty where nothing is.
        leave_out: rows of the gallery that are the query itself.
    """

    vectors: Floats
    contract: Contract
    names: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    leave_out: Where | None = None


def track_query(gallery: Gallery | DatabaseGallery, track: int, source: str | None) -> Query:
    """A track of the gallery: the mean of its vectors. It does not find itself.

    Args:
        gallery: that holds it.
        track: its id.
        source: where it was seen; it may be left out where only one source has such a track.

    Raises:
        InputError: no such track, or several.
    """
    where = Where(track=track, source=() if source is None else (source,))
    gallery.check_names(where)
    found = gallery.read(where)
    sources = sorted(set(found.rows["source"].to_pylist()))
    if not sources:
        raise _no_track(gallery, track, source)
    if len(sources) > 1:
        raise InputError(
            f"track {track}: in {len(sources)} sources, {sources[0]} and {sources[1]} among them; "
            "name one with `source`",
            parameter="track",
            value=track,
        )
    mean = found.vectors.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    # Vectors that cancel out have no direction; any of them says as much as their mean.
    vector = mean / length if length > 1e-6 else found.vectors[0]
    middle = found.rows.slice(len(found.rows) // 2, 1).to_pylist()[0]
    return Query(
        vectors=np.asarray(vector, np.float32)[None],
        contract=found.contract,
        names=(f"track {track} of {sources[0]}",),
        rows=(middle,),
        leave_out=dataclasses.replace(where, source=(sources[0],)),
    )


def _no_track(gallery: Gallery | DatabaseGallery, track: int, source: str | None) -> InputError:
    """What is said where a source is there and the track is not."""
    there = gallery.tracks(source)
    holder = f"the gallery {gallery.path}" if source is None else source
    if there:
        known = f"there are {_ranges(there)}"
    else:
        known = "its rows are of no track; search by an image or by vectors"
    return InputError(
        f"track={track}: not among the tracks of {holder}; {known}", parameter="track", value=track
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, as few words as say them; the first of many.

    >>> _ranges([1, 2, 3, 5, 8, 9])
    '1 to 3, 5, 8, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said = [
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
        for run in runs[:_RANGES]
    ]
    more = sum(map(len, runs[_RANGES:]))
    return ", ".join(said) + (f" and {more} more" if more else "")


def image_query(
    images: Sequence[Path], embedder: Embedder, gallery: Gallery | DatabaseGallery
) -> Query:
    """Image files of one person each, as tight as a detector's boxes.

    Args:
        images: the files.
        embedder: the gallery's model.
        gallery: that is searched.

    Raises:
        ContractError: the model is of another feature space than the gallery, before it runs.
        InputError: a file that is missing or no image.
    """
    spaces = embedder.space, gallery.contract.space
    require_same_space(*spaces, names=("the model", f"the gallery {gallery.path}"))
    return Query(
        vectors=embedder.embed_paths(images),
        contract=embedder.contract,
        names=tuple(map(str, images)),
        rows=tuple({"source": str(path)} for path in images),
    )


def stored_query(path: Path) -> Query:
    """Every row that ``sa-deploy embed`` wrote, as a query of its own.

    Raises:
        InputError: a file that cannot be read, or holds no rows.
    """
    found = read_embeddings(path)
    rows = found.rows.to_pylist()
    if not rows:
        raise InputError(f"{path}: holds no vectors; expected at least one to search for")
    return Query(
        vectors=found.vectors,
        contract=found.contract,
        names=tuple(map(_name, rows)),
        rows=tuple(rows),
    )


def _name(row: dict[str, Any]) -> str:
    parts = [str(row["source"])]
    if row["frame"] is not None:
        parts.append(f"frame {row['frame']}")
    if row["track_id"] is not None:
        parts.append(f"track {row['track_id']}")
    return ", ".join(parts)
