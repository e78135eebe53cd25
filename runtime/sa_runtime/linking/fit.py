"""The threshold of links, learnt from tracks of people who are known: never set by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.linking.link import Links, link_tracks
from sa_runtime.linking.measures import LinkMeasures, measure_links
from sa_runtime.linking.tracks import Ints, Tracks
from sa_runtime.system.locking import owned_path

SCHEMA = "sa-deploy.links/1"
_COARSE, _FINE = 24, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkParameters:
    """What linking goes by.

    Attributes:
        space: id of the feature space that it holds for.
        threshold: mean cosine from which on groups of tracks are one person.
        idf1: mean over the worlds it was learnt from; ``None`` where pairs of pictures taught it.
        worlds, tracks, persons: how many those were.
    """

    space: str
    threshold: float
    idf1: float | None
    worlds: int
    tracks: int
    persons: int

    def write(self, path: Path) -> None:
        """Write them as JSON, atomically."""
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2) + "\n"
        with owned_path(path) as temporary:
            temporary.write_text(text)

    @classmethod
    def calibrated(cls, space: str, match_below: float, persons: int) -> LinkParameters:
        """From a calibration's threshold: what two pictures that match are, two tracks are too.

        Args:
            space: id of the feature space.
            match_below: squared Euclidean distance of vectors of unit length, 0 to 4.
            persons: that taught it.
        """
        return cls(
            space=space,
            threshold=1 - match_below / 2,
            idf1=None,
            worlds=0,
            tracks=0,
            persons=persons,
        )

    @classmethod
    def read(cls, path: Path) -> LinkParameters:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: no such file, or another one.
        """
        try:
            fields = json.loads(path.read_text())
            if fields.pop("schema", None) != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            found = cls(**fields)
            if not -1 <= found.threshold <= 1:
                raise ValueError(f"its threshold is {found.threshold}")
        except FileNotFoundError as exc:
            raise MissingFileError(
                f"{path}: no such file; expected parameters of `sa-deploy link --fit`", path=path
            ) from exc
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            raise InputError(
                f"{path}: not parameters that can be read ({exc}); expected a file of "
                "`sa-deploy link --fit`",
                path=path,
            ) from exc
        return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Tracks with the truth.

    Attributes:
        tracks: T of them.
        person: (T,) who is on each.
    """

    tracks: Tracks
    person: Ints


def fit_links(
    worlds: Sequence[World],
    space: str,
    *,
    linker: Callable[[Tracks, float], Links] = link_tracks,
) -> LinkParameters:
    """Take the threshold under which the links of known people are best.

    The one of the highest IDF1, the mean over worlds; of equally good ones the middle. A coarse row
    of thresholds between the furthest and the nearest pair is tried, then a fine one around the
    best.

    Args:
        worlds: tracks of known people, other ones than are linked later.
        space: id of the feature space.
        linker: how tracks are linked.

    Raises:
        InputError: no world, or one in which nobody is on two tracks.
    """
    if not worlds:
        raise InputError("no tracks of known people given: expected at least one world")
    for world in worlds:
        if len(np.unique(world.person)) == len(world.person):
            raise InputError(
                f"{len(world.person)} tracks of as many people: expected people on two tracks or "
                "more, to learn from"
            )
    low, high = _range(worlds)
    grid = np.linspace(low, high, _COARSE)
    scores = [_score(worlds, float(value), linker) for value in grid]
    best = int(np.argmax(scores))
    step = grid[1] - grid[0]
    fine = np.linspace(grid[best] - step, grid[best] + step, _FINE)
    values = np.clip(np.concatenate([grid, fine]), -1, 1)
    scores += [_score(worlds, float(value), linker) for value in values[_COARSE:]]
    top = np.sort(values[np.isclose(scores, max(scores), atol=1e-9)])
    return LinkParameters(
        space=space,
        threshold=float(top[len(top) // 2]),
        idf1=float(max(scores)),
        worlds=len(worlds),
        tracks=sum(len(world.tracks) for world in worlds),
        persons=sum(len(np.unique(world.person)) for world in worlds),
    )


def measure_world(world: World, links: Links) -> LinkMeasures:
    """The measures of links of a world."""
    return measure_links(links.identity, world.person, world.tracks.rows)


def _score(
    worlds: Sequence[World], threshold: float, linker: Callable[[Tracks, float], Links]
) -> float:
    found = [measure_world(world, linker(world.tracks, threshold)).idf1 for world in worlds]
    return float(np.mean(found))


def _range(worlds: Sequence[World]) -> tuple[float, float]:
    """The lowest and the highest cosine of different tracks."""
    lows, highs = [], []
    for world in worlds:
        vectors = world.tracks.vectors
        cosine = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
        lows.append(float(cosine.min()))
        highs.append(float(cosine.max()))
    return max(-1.0, min(lows)), min(1.0, max(highs))
