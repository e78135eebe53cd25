"""Figures of groups of queries: by the height of their crops, by when they were taken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import Sample
from sa_runtime.decoding import read_image
from sa_runtime.image_files import image_size
from sa_runtime.retrieval.metrics import RetrievalResult
from sa_runtime.retrieval.vectors import Ints

_HEADER_BYTES = 2**16
_GROUPS = 4
_TIMES = (
    # MSMT17: person_image_camera_MMDDpart-of-day_...
    re.compile(r"^\d+_\d+_\d+_\d{4}(?P<part>morning|noon|afternoon)"),
    # Market-1501 and the synthetic world: person_cCAMERAsSEQUENCE_...
    re.compile(r"_c\d+s(?P<sequence>\d+)_"),
    # DukeMTMC: person_cCAMERA_fFRAME
    re.compile(r"_c\d+_f(?P<frame>\d+)"),
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some queries.

    Attributes:
        name: what they have in common.
        queries: that count.
        mAP: fraction.
        rank1: fraction whose nearest image is right.
    """

    name: str
    queries: int
    mAP: float
    rank1: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "queries": self.queries,
            "mAP": self.mAP,
            "rank1": self.rank1,
        }


def heights_of(samples: Sequence[Sample]) -> Ints:
    """(N,) heights of image files in pixels, from their headers where those say.

    Raises:
        InputError: an image that cannot be read.
    """
    return np.array([_height(sample.path) for sample in samples], np.int64)


def by_height(result: RetrievalResult, samples: Sequence[Sample]) -> tuple[Group, ...]:
    """Four groups of about as many queries each, from low crops to high ones.

    Fewer where many crops are equally high; none where all are.
    """
    return _by_number(result, heights_of(samples), "{} to {} px")


def by_time(result: RetrievalResult, samples: Sequence[Sample]) -> tuple[Group, ...]:
    """Groups by time of day, sequence or frame, whichever the file names of a layout tell.

    None where they tell nothing, or the same of all.
    """
    found = [_time(sample.path.name) for sample in samples]
    kinds = {kind for kind, _ in found}
    if len(kinds) != 1 or None in kinds:
        return ()
    kind = kinds.pop()
    if kind == "frame":
        return _by_number(result, np.array([int(value) for _, value in found]), "frames {} to {}")
    names = [value if kind == "part" else f"sequence {value}" for _, value in found]
    order = {"morning": "0", "noon": "1", "afternoon": "2"}
    members: dict[str, list[int]] = {}
    for index in np.flatnonzero(result.first_rank).tolist():
        members.setdefault(names[index], []).append(index)
    return _groups(result, {name: members[name] for name in sorted(members, key=_natural(order))})


def _by_number(result: RetrievalResult, values: Ints, form: str) -> tuple[Group, ...]:
    counted = np.flatnonzero(result.first_rank)
    edges = np.unique(np.quantile(values[counted], np.linspace(0, 1, _GROUPS + 1)))
    if len(edges) < 2:
        return ()
    place = np.clip(np.searchsorted(edges, values[counted], side="right") - 1, 0, len(edges) - 2)
    members = {}
    for index in range(len(edges) - 1):
        inside = counted[place == index]
        if len(inside):
            name = form.format(values[inside].min(), values[inside].max())
            members[name] = inside.tolist()
    return _groups(result, members)


def _groups(result: RetrievalResult, members: Mapping[str, Sequence[int]]) -> tuple[Group, ...]:
    if len(members) < 2:
        return ()
    first: NDArray[np.bool_] = result.first_rank == 1
    return tuple(
        Group(
            name=name,
            queries=len(index),
            mAP=float(np.mean(result.average_precision[list(index)])),
            rank1=float(np.mean(first[list(index)])),
        )
        for name, index in members.items()
    )


def _natural(order: Mapping[str, str]) -> Any:
    return lambda name: [
        int(part) if part.isdigit() else order.get(part, part) for part in re.split(r"(\d+)", name)
    ]


def _time(name: str) -> tuple[str | None, str]:
    for pattern in _TIMES:
        if found := pattern.search(name):
            ((kind, value),) = found.groupdict().items()
            return kind, value
    return None, ""


def _height(path: Path) -> int:
    with path.open("rb") as file:
        size = image_size(file.read(_HEADER_BYTES))
    return read_image(path).shape[0] if size is None else size[1]
