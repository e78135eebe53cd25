"""Tracks to identities: mutual neighbours are joined, the nearest first.

Average-linkage clustering of tracks by cosine, from the most alike pair on, as far as a threshold
that other people's tracks have taught (:mod:`sa_runtime.linking.fit`). The most alike pair of all
is each other's nearest, so that every link is mutual. Tracks seen at once in one source never come
together, nor do identities that were told apart before. What the cameras add to every vector
(light, colour, angle) is taken off first: each camera's mean, as far as it differs from the common
one by more than its tracks' spread makes it by chance (James and Stein; no number to be set).

Shape suffixes: T tracks, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.errors import InputError, bad_value
from sa_runtime.linking.tracks import Ints, Tracks

MOST_TRACKS = 20_000
"""Beyond, the table of all pairs would take more than 4 GiB."""
_NEVER = np.float32(-np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """Who is on each track.

    Attributes:
        identity: (T,) numbers from 0; new ones follow those that were known before.
        certainty: (T,) mean cosine to the other tracks of the identity, NaN where there is none.
    """

    identity: Ints
    certainty: NDArray[np.float32]


def link_tracks(
    tracks: Tracks,
    threshold: float,
    *,
    known: Ints | None = None,
    remove_bias: bool = True,
) -> Links:
    """Find the identities of tracks.

    Args:
        tracks: T of them, of one feature space.
        threshold: mean cosine from which on two groups of tracks are one person.
        known: (T,) identities of before, -1 for tracks that are new. Tracks that were one person
            stay one, and two identities stay two.
        remove_bias: take off what a camera adds to its vectors.

    Raises:
        InputError: a threshold outside [-1, 1], other shapes, or too many tracks.
    """
    count = len(tracks)
    if not -1 <= threshold <= 1:
        raise bad_value("threshold", threshold, "a cosine; expected -1 to 1")
    if count > MOST_TRACKS:
        raise InputError(
            f"{count:,} tracks: expected at most {MOST_TRACKS:,} at a time; link a day or a place "
            "after another"
        )
    if known is None:
        known = np.full(count, -1, np.int64)
    if known.shape != (count,):
        raise InputError(f"known identities of shape {known.shape} for {count} tracks")
    vectors = without_bias(tracks) if remove_bias else tracks.vectors
    cosine_TT = (vectors @ vectors.T).astype(np.float32)
    groups = _Groups(cosine_TT, tracks.together())
    fresh: list[int] = []
    before = np.unique(known[known >= 0])
    leaders = []
    for identity in before:
        leader, *others = np.flatnonzero(known == identity).tolist()
        for other in others:
            groups.join(leader, other)
        leaders.append(leader)
    groups.forbid_among(leaders)
    groups.join_all(threshold)
    names = dict(zip((groups.leader(leader) for leader in leaders), before.tolist(), strict=True))
    following = int(before.max()) + 1 if len(before) else 0
    for track in range(count):
        leader = groups.leader(track)
        if leader not in names:
            names[leader] = following + len(fresh)
            fresh.append(leader)
    identity = np.array([names[groups.leader(track)] for track in range(count)], np.int64)
    return Links(identity=identity, certainty=_certainty(cosine_TT, identity))


def link_nearest(tracks: Tracks, threshold: float) -> Links:
    """What :func:`link_tracks` is measured against: everyone's nearest track elsewhere.

    Each track is joined with the nearest one of another camera where their cosine reaches the
    threshold, whoever is seen at once.
    """
    camera = tracks.camera_index()
    cosine = tracks.vectors @ tracks.vectors.T
    allowed = np.where(camera[:, None] != camera, cosine, -np.inf)
    root = list(range(len(tracks)))

    def find(track: int) -> int:
        while root[track] != track:
            root[track] = root[root[track]]
            track = root[track]
        return track

    for track in range(len(tracks)):
        nearest = int(np.argmax(allowed[track]))
        if allowed[track, nearest] >= threshold:
            root[find(nearest)] = find(track)
    _, identity = np.unique([find(track) for track in range(len(tracks))], return_inverse=True)
    return Links(
        identity=identity.astype(np.int64),
        certainty=_certainty(cosine.astype(np.float32), identity),
    )


def without_bias(tracks: Tracks) -> Embeddings:
    """(T, D) float32 vectors of unit length without what their camera adds.

    The mean of a camera's n tracks differs from the common one by chance, by the tracks' own
    variance over n; of the difference only the share beyond that is taken off.
    """
    vectors = tracks.vectors.astype(np.float64)
    camera = tracks.camera_index()
    common = vectors.mean(axis=0) if len(vectors) else 0.0
    moved = vectors.copy()
    for index in np.unique(camera):
        mine = camera == index
        count = int(mine.sum())
        offset = vectors[mine].mean(axis=0) - common
        apart = float(offset @ offset)
        if count < 2 or apart == 0:
            continue
        spread = float(vectors[mine].var(axis=0, ddof=1).sum())
        moved[mine] -= max(0.0, 1 - spread / count / apart) * offset
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.where(length > 0, length, 1), np.float32)


class _Groups:
    """Groups of tracks, each under its first track's number, with the sums of their cosines."""

    def __init__(self, cosine_TT: NDArray[np.float32], apart_TT: NDArray[np.bool_]) -> None:
        count = len(cosine_TT)
        self._sum, self._apart = cosine_TT.astype(np.float32).copy(), apart_TT.copy()
        np.fill_diagonal(self._apart, True)
        self._size = np.ones(count, np.float32)
        self._root = list(range(count))
        self._best = np.full(count, _NEVER)
        self._with = np.full(count, -1, np.int64)

    def leader(self, track: int) -> int:
        """The number of a track's group."""
        while self._root[track] != track:
            self._root[track] = self._root[self._root[track]]
            track = self._root[track]
        return track

    def forbid_among(self, leaders: list[int]) -> None:
        """Keep groups apart for good."""
        self._apart[np.ix_(leaders, leaders)] = True

    def join(self, one: int, other: int) -> None:
        """Put a group into another one."""
        self._root[other] = one
        self._size[one] += self._size[other]
        self._sum[one] += self._sum[other]
        self._sum[:, one] = self._sum[one]
        self._apart[one] |= self._apart[other]
        self._apart[:, one] = self._apart[one]
        self._apart[other] = True
        self._apart[:, other] = True

    def join_all(self, threshold: float) -> None:
        """Join the most alike pair as long as one reaches the threshold."""
        for group in range(len(self._root)):
            self._look(group)
        while len(self._best):
            one = int(np.argmax(self._best))
            if not self._best[one] >= threshold:
                return
            other = int(self._with[one])
            self.join(one, other)
            self._best[other] = _NEVER
            self._look(one)
            stale = np.flatnonzero((self._with == one) | (self._with == other))
            for group in stale[(stale != one) & (stale != other)].tolist():
                self._look(group)

    def _look(self, group: int) -> None:
        """Find a group's nearest one."""
        mean = self._sum[group] / (self._size[group] * self._size)
        mean[self._apart[group]] = _NEVER
        nearest = int(np.argmax(mean))
        self._best[group], self._with[group] = mean[nearest], nearest


def _certainty(cosine_TT: NDArray[Any], identity: Ints) -> NDArray[np.float32]:
    certainty = np.full(len(identity), np.nan, np.float32)
    for who in np.unique(identity):
        mine = np.flatnonzero(identity == who)
        if len(mine) > 1:
            block = cosine_TT[np.ix_(mine, mine)]
            certainty[mine] = (block.sum(axis=1) - np.diagonal(block)) / (len(mine) - 1)
    return certainty
