"""Calibration: how near two pictures must be for one person to be said, at a stated rate of error.

Labelled pairs give two distances. Below the first lies at most the stated share of the impostor
pairs: a *match*. Beyond the second lies at most another stated share of the genuine pairs:
*nobody*. Between them stands *perhaps*.

Pairs are not independent, since a person is in many of them. So intervals come from drawing people,
not pairs (the vertex bootstrap of Snijders and Borgatti, 1999).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sa_runtime.errors import bad_value
from sa_runtime.retrieval.distance import VectorDistances
from sa_runtime.retrieval.labels import Labels, without_junk
from sa_runtime.retrieval.open_set import OpenSetResult, open_set_of_distances
from sa_runtime.retrieval.vectors import Ints, Vectors

Verdict = Literal["match", "perhaps", "nobody"]
LEAST_PAIRS = 10
"""So many impostor pairs at least must lie below a threshold that is to be believed."""
_DRAWS = 1000
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A measured rate with its interval.

    Attributes:
        value: a fraction.
        low: lower end of the 95 % interval over people.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def holds(self, stated: float) -> bool:
        """Whether the interval does not lie beyond a stated rate."""
        return self.low <= stated

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stated:
    """What errors are accepted.

    Attributes:
        false_accepts: share of the impostor pairs that may be taken for a match.
        misses: share of the genuine pairs that may be taken for nobody.
    """

    false_accepts: float = 1e-3
    misses: float = 0.05

    def __post_init__(self) -> None:
        """Check both; raises InputError."""
        for name in ("false_accepts", "misses"):
            if not 0 < getattr(self, name) < 1:
                value = getattr(self, name)
                raise bad_value(name, value, "expected a share above 0 and below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds of one feature space, as they are stored with a gallery.

    Attributes:
        false_accepts: stated share of the impostor pairs below ``match_below``.
        misses: stated share of the genuine pairs beyond ``nobody_from``.
        match_below: squared Euclidean distance.
        nobody_from: squared Euclidean distance, at least ``match_below``.
        false_accept_rate: measured on the pairs that gave the threshold.
        true_accept_rate: share of the genuine pairs below ``match_below``.
        genuine_pairs: that were measured.
        impostor_pairs: that were measured.
        persons: in them.
        camera_pairs: ``match_below`` of pairs of cameras (names sorted, joined by a tab) that had
            enough impostor pairs of their own.
        origin: what the pairs came from.
        open_set: the figures of :meth:`sa_runtime.retrieval.open_set.OpenSetResult.to_dict`.
    """

    false_accepts: float
    misses: float
    match_below: float
    nobody_from: float
    false_accept_rate: Rate
    true_accept_rate: Rate
    genuine_pairs: int
    impostor_pairs: int
    persons: int
    camera_pairs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    origin: str = ""
    open_set: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def verdict(self, distance: float, cameras: tuple[str | None, str | None]) -> Verdict:
        """What a distance says.

        Args:
            distance: squared Euclidean.
            cameras: of the query and of the row found, where they are known.
        """
        limit = self.match_below
        if None not in cameras:
            limit = self.camera_pairs.get(_pair(*map(str, cameras)), limit)
        if distance < limit:
            return "match"
        return "perhaps" if distance < self.nobody_from else "nobody"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """What :meth:`to_dict` gave.

        Raises:
            TypeError, ValueError, KeyError: it is something else.
        """
        rates = {
            name: Rate(**{end: float(value) for end, value in fields[name].items()})
            for name in ("false_accept_rate", "true_accept_rate")
        }
        made = cls(**{**fields, **rates})
        if not (
            math.isfinite(made.match_below)
            and made.nobody_from >= made.match_below
            and all(math.isfinite(value) for value in made.camera_pairs.values())
        ):
            raise ValueError(f"thresholds {made.match_below}, {made.nobody_from}")
        return made


def calibrate_pairs(
    query: Vectors,
    query_labels: Labels,
    gallery: Vectors,
    gallery_labels: Labels,
    *,
    stated: Stated | None = None,
    cameras: Mapping[int, str] | None = None,
    origin: str = "",
    seed: int = 0,
) -> Calibration:
    """Thresholds from labelled vectors.

    Args:
        query: (Q, D) vectors of unit length.
        query_labels: of the Q queries; see :mod:`sa_runtime.retrieval.open_set` for what counts.
        gallery: (G, D) vectors of unit length.
        gallery_labels: of the G images.
        stated: what errors are accepted.
        cameras: names of the cameras; with them pairs of cameras get thresholds of their own.
        origin: what the vectors came from.
        seed: of the intervals.

    Raises:
        InputError: no genuine pair, or too few impostor pairs for the rate.
    """
    stated = stated or Stated()
    false_accepts, misses = stated.false_accepts, stated.misses
    one, two = (
        without_junk(query, query_labels, "query"),
        without_junk(gallery, gallery_labels, "gallery"),
    )
    source = VectorDistances(one[0], two[0])
    result = open_set_of_distances(source, one[1], two[1], rates=_rates(false_accepts))
    _require_enough(result.impostor_pairs, false_accepts)
    match_below = float(result.threshold[0])
    if not math.isfinite(match_below):
        raise bad_value("false_accepts", false_accepts, "accepts every pair; choose a smaller one")
    measured = _Pairs(source, one[1], two[1], match_below)
    beyond = float(np.quantile(result.genuine, 1 - misses, method="higher"))
    return Calibration(
        false_accepts=false_accepts,
        misses=misses,
        match_below=match_below,
        nobody_from=max(match_below, float(np.nextafter(np.float32(beyond), np.float32(np.inf)))),
        false_accept_rate=measured.false_accepts(seed),
        true_accept_rate=measured.true_accepts(seed),
        genuine_pairs=len(result.genuine),
        impostor_pairs=result.impostor_pairs,
        persons=len(np.unique(one[1].person[one[1].person > 0])),
        camera_pairs=_camera_pairs(source, one[1], two[1], false_accepts, cameras or {}),
        origin=origin,
        open_set=result.to_dict(),
    )


def rates_at(
    query: Vectors,
    query_labels: Labels,
    gallery: Vectors,
    gallery_labels: Labels,
    threshold: float,
    *,
    seed: int = 0,
) -> tuple[Rate, Rate]:
    """False and true accept rates of other vectors at a threshold, with intervals over people.

    Args:
        query: (Q, D) vectors.
        query_labels: of the Q queries.
        gallery: (G, D) vectors.
        gallery_labels: of the G images.
        threshold: pairs below it are accepted.
        seed: of the intervals.
    """
    one, two = (
        without_junk(query, query_labels, "query"),
        without_junk(gallery, gallery_labels, "gallery"),
    )
    source = VectorDistances(one[0], two[0])
    measured = _Pairs(source, one[1], two[1], threshold)
    return measured.false_accepts(seed), measured.true_accepts(seed)


def _rates(false_accepts: float) -> tuple[float, ...]:
    """The stated rate first, then those that papers print."""
    return (false_accepts, *(rate for rate in (1e-2, 1e-3, 1e-4) if rate != false_accepts))


def _require_enough(pairs: int, rate: float) -> None:
    if pairs * rate < LEAST_PAIRS:
        least = LEAST_PAIRS / pairs
        raise bad_value(
            "false_accepts",
            rate,
            f"{pairs:,} impostor pairs cannot show it, expected {LEAST_PAIRS} pairs below the "
            f"threshold; label more people, or choose {least:.2g} or more",
        )


class _Pairs:
    """Accepted and all pairs, by person."""

    def __init__(
        self, source: VectorDistances, query: Labels, gallery: Labels, threshold: float
    ) -> None:
        one, two, self.people = _vertices(query.person, gallery.person)
        self._images = np.bincount(one, minlength=self.people).astype(np.float64)
        self._others = np.bincount(two, minlength=self.people).astype(np.float64)
        self._genuine = np.zeros((2, self.people))
        accepted: list[Ints] = [np.empty(0, np.int64)]
        for index, row in enumerate(source.rows()):
            same = two == one[index]
            matches = same & (gallery.camera != query.camera[index])
            below = row < threshold
            self._genuine[0, one[index]] += np.count_nonzero(below & matches)
            self._genuine[1, one[index]] += np.count_nonzero(matches)
            accepted.append(one[index] * self.people + two[below & ~same])
        pairs, self._count = np.unique(np.concatenate(accepted), return_counts=True)
        self._one, self._two = np.divmod(pairs, self.people)

    def false_accepts(self, seed: int) -> Rate:
        """Of impostor pairs."""

        def rate(weight: NDArray[np.float64]) -> float:
            found = (weight[self._one] * weight[self._two] * self._count).sum()
            total = (weight @ self._images) * (weight @ self._others)
            total -= (weight**2 * self._images * self._others).sum()
            return float(found / total) if total > 0 else math.nan

        return self._rate(rate, seed)

    def true_accepts(self, seed: int) -> Rate:
        """Of genuine pairs."""

        def rate(weight: NDArray[np.float64]) -> float:
            accepted, total = self._genuine @ weight
            return float(accepted / total) if total > 0 else math.nan

        return self._rate(rate, seed)

    def _rate(self, rate: Any, seed: int) -> Rate:
        rng = np.random.default_rng(seed)
        share = np.full(self.people, 1 / self.people)
        drawn = rng.multinomial(self.people, share, size=_DRAWS).astype(np.float64)
        values = np.array([rate(weight) for weight in drawn])
        tail = 100 * (1 - _LEVEL) / 2
        low, high = np.nanpercentile(values, [tail, 100 - tail])
        return Rate(value=rate(np.ones(self.people)), low=float(low), high=float(high))


def _vertices(query: Ints, gallery: Ints) -> tuple[Ints, Ints, int]:
    """People numbered from 0; every distractor is somebody else."""
    known = np.unique(np.concatenate([query[query > 0], gallery[gallery > 0]]))
    sides, count = [], len(known)
    for person in (query, gallery):
        number = np.searchsorted(known, person)
        unknown = np.flatnonzero(person == 0)
        number[unknown] = count + np.arange(len(unknown))
        count += len(unknown)
        sides.append(number)
    return sides[0], sides[1], count


def _pair(one: str, two: str) -> str:
    return "\t".join(sorted((one, two)))


def _camera_pairs(
    source: VectorDistances,
    query: Labels,
    gallery: Labels,
    rate: float,
    names: Mapping[int, str],
) -> dict[str, float]:
    """Thresholds of the pairs of cameras that have enough impostor pairs."""
    impostors: dict[str, list[NDArray[Any]]] = {}
    if names:
        for index, row in enumerate(source.rows()):
            other = gallery.person != query.person[index]
            for camera in np.unique(gallery.camera):
                key = _pair(names[int(query.camera[index])], names[int(camera)])
                found = row[other & (gallery.camera == camera)].astype(np.float32)
                impostors.setdefault(key, []).append(found)
    thresholds = {}
    for key, parts in impostors.items():
        values = np.concatenate(parts)
        allowed = math.floor(rate * len(values) * (1 + 1e-12))
        if allowed >= LEAST_PAIRS:
            thresholds[key] = float(np.partition(values, allowed)[allowed])
    return dict(sorted(thresholds.items()))


def open_set_rows(result: OpenSetResult | Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its figures, a rate a row."""
    fields = result.to_dict() if isinstance(result, OpenSetResult) else result
    return sorted(fields["at"], key=lambda row: -row["rate"])
