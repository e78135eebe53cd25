"""Sources of earlier runs and of this one, told apart by what their plans say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sa_runtime.outputs.manifest import differences

_NAMES = ("video", "images", "path", "address", "name")
"""What the identity of a source calls the place it comes from."""
_ONCE = "since"
"""In the identity of what comes once, as a camera: another follows it, none goes on with it."""


def joined_sources(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]], finished: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The sources of earlier runs, and behind them those that are new.

    Args:
        before: of earlier runs, in the order in which they were embedded.
        now: of this run, in any order.
        finished: so many of the earlier ones are embedded, and may be missing now.

    Returns:
        The joined ones, and what forbids it: an earlier source that changed, or that is not
        finished and not given.

    >>> a, b = {"video": "a.mp4", "size_bytes": 1}, {"video": "b.mp4", "size_bytes": 2}
    >>> joined_sources([b], [a, b], 0)
    ([{'video': 'b.mp4', 'size_bytes': 2}, {'video': 'a.mp4', 'size_bytes': 1}], [])
    >>> joined_sources([b], [{"video": "b.mp4", "size_bytes": 3}], 1)[1]
    ['sources.0.size_bytes was 2 and is 3']
    >>> joined_sources([a, b], [a], 1)[1]
    ['sources.1 was {"video": "b.mp4", "size_bytes": 2} and is absent']
    >>> old, new = ({"address": "rtsp://c/1", "since": since} for since in ("8:00", "9:00"))
    >>> joined_sources([old], [new], 0) == ([old, new], [])
    True
    """
    left = list(now)
    absent: list[tuple[int, dict[str, Any]]] = []
    for index, source in enumerate(before):
        if source in left:
            left.remove(source)
        else:
            absent.append((index, source))
    found: list[str] = []
    for index, source in absent:
        other = next((one for one in left if _same_place(source, one)), None)
        if other is not None:
            left.remove(other)
            found += differences(source, other, f"sources.{index}")
        elif index >= finished and _ONCE not in source:
            found += differences(source, None, f"sources.{index}")
    return [*before, *left], found


def order_of(plan: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> Iterator[int | None]:
    """Which of the sources given each of a plan is; ``None`` for one that is not given any more.

    >>> list(order_of([{"video": "a"}, {"video": "b"}], [{"video": "b"}]))
    [None, 0]
    """
    waiting = list(enumerate(now))
    for source in plan:
        found = next(((index, one) for index, one in waiting if one == source), None)
        if found is not None:
            waiting.remove(found)
        yield None if found is None else found[0]


def _same_place(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sources that differ are one that was changed.

    A folder of images has no name in its plan: of two that differ it is taken for the other.
    """
    if _ONCE in one or _ONCE in other:
        return False
    for name in _NAMES:
        if name in one or name in other:
            alike = name in one and name in other
            return alike and (one[name] == other[name] or name == "images")
    return set(one) == set(other)
