"""Kinds of sources by name, and the sources that paths and addresses stand for."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from sa_runtime.errors import InputError
from sa_runtime.sources.archive import is_archive
from sa_runtime.sources.base import Source, SourceKind, SourceOptions
from sa_runtime.sources.images import find_images
from sa_runtime.sources.pairing import Boxes, Location, pair

_log = logging.getLogger(__name__)

SOURCES: dict[str, str] = {
    "live": "sa_runtime.sources.live:LiveSource",
    "images in a store": "sa_runtime.sources.remote:RemoteImages",
    "video in a store": "sa_runtime.sources.remote:RemoteVideo",
    "frames": "sa_runtime.sources.frames:FrameSource",
    "tar": "sa_runtime.sources.archive:TarSource",
    "images": "sa_runtime.sources.images:ImageSource",
    "video": "sa_runtime.sources.video:VideoSource",
    "detected": "sa_runtime.sources.detected:DetectedVideo",
}
"""A path or address is of the first kind that takes it; whatever is left is a video."""


def _named(name: str) -> type[SourceKind]:
    module, _, attribute = SOURCES[name].partition(":")
    kind: type[SourceKind] = getattr(importlib.import_module(module), attribute)
    return kind


def source_kind(location: str) -> type[SourceKind]:
    """The class of the source that a path or address stands for."""
    for name in SOURCES:
        kind = _named(name)
        if kind.takes(location):
            return kind
    raise InputError(f"{location}: of no known kind; expected {', '.join(SOURCES)}")


def find_sources(
    given: Sequence[Location | Source],
    detections: Sequence[Boxes] = (),
    options: SourceOptions | None = None,
) -> list[Source]:
    """What paths and addresses stand for.

    Every folder is searched, every detection file read and every video opened, so that what cannot
    work fails before a model runs.

    Args:
        given: in the order in which they are to be embedded; a source stands for itself. Folders
            and tar files hold one person an image; where there are detections and nothing else
            that they could be of, they hold frames.
        detections: see :func:`sa_runtime.sources.pairing.pair`.
        options: for those that are opened; an image that is given by name must always be whole.

    Raises:
        InputError: a missing path, a folder without images, or videos and detection files that do
            not pair up.
        DetectionError: a detection file that cannot be read.
        VideoError: a video that cannot be opened.
    """
    shared = options or SourceOptions()
    kinds = _kinds(given, boxed=len(detections) > 0, detected=shared.detector is not None)
    needing = [
        os.fspath(one)
        for one, kind in zip(given, kinds, strict=True)
        if kind is not None and kind.needs_detections and not isinstance(one, Source)
    ]
    boxes = iter(pair(needing, detections, shared.boxes))
    found: list[Source] = []
    for one, kind in zip(given, kinds, strict=True):
        if isinstance(one, Source):
            found.append(one)
        elif kind is not None:
            read = next(boxes, None) if kind.needs_detections else None
            source = kind.open(os.fspath(one), dataclasses.replace(shared, detections=read))
            _log.info("%s: at most %d rows", one, len(source), extra={"rows": len(source)})
            found.append(source)
    return found


def _kinds(
    given: Sequence[Location | Source], *, boxed: bool, detected: bool
) -> list[type[SourceKind] | None]:
    kinds = [None if isinstance(one, Source) else source_kind(os.fspath(one)) for one in given]
    if detected and not boxed:
        found = _named("detected")
        return [found if kind is _named("video") else kind for kind in kinds]
    if not boxed or any(kind is not None and kind.needs_detections for kind in kinds):
        return kinds
    return [
        _named("frames")
        if kind is not None and not isinstance(one, Source) and _may_hold_frames(os.fspath(one))
        else kind
        for one, kind in zip(given, kinds, strict=True)
    ]


def _may_hold_frames(location: str) -> bool:
    if os.path.isdir(location):
        find_images(Path(location))  # or say that there are none, before boxes are looked for
        return True
    return is_archive(location)
