"""Which sources a machine embeds, and the camera of each: rules that go by the name of a source."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sa_runtime.detections.base import Detections
from sa_runtime.errors import bad_value
from sa_runtime.items import Counts, Item
from sa_runtime.sources.base import START, OnSkip, Place, Source, ignore

CameraRule = Callable[[str], str | None]
"""Path or address of a picture's source -> camera."""


def camera_rule(text: str) -> CameraRule:
    """How the camera is told from the path of a source.

    Args:
        text: ``name``, the file's name without its suffix; ``folder``, the name of the folder it
            is in; or a regular expression, whose first group is the camera, or the whole of what
            it finds. Where it finds nothing there is no camera.

    Raises:
        InputError: not a regular expression.

    >>> camera_rule("name")("day/c1.mp4"), camera_rule("folder")("day/c1.mp4")
    ('c1', 'day')
    >>> rule = camera_rule(r"_(c\\d+)s\\d")
    >>> rule("market/0002_c1s1_000451_03.jpg"), rule("x.jpg")
    ('c1', None)
    """
    if text == "name":
        return lambda source: re.sub(r"(?<=.)\.[^.]*$", "", _parts(source)[-1]) or None
    if text == "folder":
        return lambda source: ([None, *_parts(source)])[-2]
    try:
        pattern = re.compile(text)
    except re.error as exc:
        raise bad_value(
            "camera_from",
            text,
            f"expected name, folder or a regular expression ({exc})",
        ) from exc

    def find(source: str) -> str | None:
        found = pattern.search(source)
        return None if found is None else (found[1] if pattern.groups else found[0]) or None

    return find


def with_camera(item: Item, rule: CameraRule) -> Item:
    """The item, its rows with the camera of their source."""
    rows = [row._replace(camera=rule(row.source)) for row in item.rows]
    return item._replace(rows=rows)


class Share:
    """The share of one of several machines in the sources.

    It goes by the path or address of each, so that a source stays where it is when others come:
    every machine is given all of them, and takes its own.

    Args:
        text: ``i/n``, i from 1 to n.

    Raises:
        InputError: anything else.

    >>> [Share(f"{number}/2").has("c1.mp4") for number in (1, 2)].count(True)
    1
    """

    def __init__(self, text: str) -> None:
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise bad_value("shard", text, "expected i/n with i from 1 to n, such as 1/4")
        self.number, self.count = int(found[1]), int(found[2])

    def has(self, name: str) -> bool:
        """Whether a source is of this share."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def name_of(source: Source) -> str:
    """What a source is called, which stays when its content changes."""
    described: Any = source
    if (path := getattr(described, "path", None)) is not None:
        return str(path)
    if paths := getattr(described, "paths", ()):
        return str(paths[0] if len(paths) == 1 else Path(paths[0]).parent)
    return json.dumps(source.identity(), sort_keys=True)


def require_tracks(sources: Sequence[Source], target: str) -> None:
    """Refuse to make tracks of sources none of which can have any.

    Raises:
        InputError: images, and boxes without ids.
    """
    if sources and not any(map(_may_have_tracks, sources)):
        raise bad_value(
            "tracks", target, "no box has the id of a track; pass `detections` of a tracker"
        )


def _may_have_tracks(source: Source) -> bool:
    boxes = getattr(source, "detections", None)
    if isinstance(boxes, Detections):
        return any((block.track_ids >= 0).any() for block in boxes.blocks())
    # What needs no boxes and has no detector holds images.
    images = getattr(source, "needs_detections", None) is False
    return not images or getattr(source, "detector", None) is not None


def _parts(source: str) -> list[str]:
    return [part for part in re.split(r"[/\\]+", source) if part] or [""]


class Gone:
    """A source that is embedded, and not given any more."""

    def __len__(self) -> int:
        return 0

    def identity(self) -> dict[str, Any]:
        """Nothing: it is not compared again."""
        return {}

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """None."""
        return iter(())

    def digest(self, item: Item) -> str:
        """There is no item."""
        return ""
