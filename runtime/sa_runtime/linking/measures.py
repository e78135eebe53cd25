"""How right identities are, where the truth is known.

IDF1 after Ristani et al., *Performance Measures and a Data Set for Multi-Target, Multi-Camera
Tracking* (2016): the best one-to-one match of persons and identities, counted in boxes. Tracks are
taken as they are, so that what the tracker missed is not counted against the links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sa_runtime.errors import InputError
from sa_runtime.linking.tracks import Ints
from sa_runtime.system.extras import require


@dataclass(frozen=True, kw_only=True)
class LinkMeasures:
    """Figures of some links, fractions.

    Attributes:
        idf1: identity F1 over boxes; identity precision and recall are the same number, since every
            box belongs to a track.
        precision: share of the pairs of tracks under one identity that show one person.
        recall: share of the pairs of tracks of one person that are under one identity.
        identities, persons: their numbers.
    """

    idf1: float
    precision: float
    recall: float
    identities: int
    persons: int

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "idf1": self.idf1,
            "precision": self.precision,
            "recall": self.recall,
            "identities": self.identities,
            "persons": self.persons,
        }


def measure_links(identity: Ints, person: Ints, rows: Ints) -> LinkMeasures:
    """Hold identities against the truth.

    Args:
        identity: (T,) of each track.
        person: (T,) who it shows.
        rows: (T,) boxes of it.

    Raises:
        InputError: no tracks, or other lengths.
        MissingPackageError: scipy is not installed.

    >>> found = measure_links(np.array([0, 0, 1]), np.array([7, 8, 8]), np.array([2, 1, 1]))
    >>> found.idf1, found.precision, found.recall
    (0.75, 0.0, 0.0)
    """
    if not len(identity) or not len(identity) == len(person) == len(rows):
        raise InputError(
            f"{len(identity)} identities, {len(person)} persons and {len(rows)} counts of boxes: "
            "expected one of each for every track, and at least one track"
        )
    assign = require(
        "scipy.optimize", extra="train", purpose="measuring identities"
    ).linear_sum_assignment
    persons, row = np.unique(person, return_inverse=True)
    identities, column = np.unique(identity, return_inverse=True)
    table = np.zeros((len(persons), len(identities)), np.int64)
    np.add.at(table, (row, column), rows)
    # Boxes of a person and an identity that are not matched are misses and false ones.
    matched = int(table[assign(table, maximize=True)].sum())
    tracks = np.zeros_like(table)
    np.add.at(tracks, (row, column), 1)
    right, linked, true = (_pairs(counts) for counts in (tracks, tracks.sum(0), tracks.sum(1)))
    return LinkMeasures(
        idf1=matched / int(rows.sum()),
        precision=right / linked if linked else 0.0,
        recall=right / true if true else 0.0,
        identities=len(identities),
        persons=len(persons),
    )


def _pairs(counts: Ints) -> int:
    return int((counts * (counts - 1) // 2).sum())
