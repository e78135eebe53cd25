"""Formats of detection files by name. Looking one up imports its module."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sa_runtime.detections.base import Detections, require_pixels
from sa_runtime.detections.collect import BoxesByVideo, Chunk, Collector
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.recognise import recognise
from sa_runtime.errors import bad_value, shown

_log = logging.getLogger(__name__)

Reader = Callable[[Path, BoxOptions], Iterator[Chunk]]
"""Reads a file; raises :class:`~sa_runtime.errors.DetectionError` where it cannot."""


class DetectionFormat(NamedTuple):
    """A row of the table.

    Attributes:
        reader: "module:function" of a :data:`Reader`.
        suffixes: of the files that are read so whatever they hold, where no format is named.
        image_names: "module:function" of what gives the files of frames, where a format names them.
        normalized: whether its boxes are always parts of the frame.
    """

    reader: str
    suffixes: tuple[str, ...] = ()
    image_names: str = ""
    normalized: bool = False


DETECTIONS: dict[str, DetectionFormat] = {
    "mot": DetectionFormat("sa_runtime.detections.mot:read_mot"),
    "csv": DetectionFormat("sa_runtime.detections.delimited:read_delimited"),
    "parquet": DetectionFormat("sa_runtime.detections.columnar:read_columns", (".parquet", ".pq")),
    "coco": DetectionFormat(
        "sa_runtime.detections.coco:read_coco", (".json",), "sa_runtime.detections.coco:image_names"
    ),
    "ultralytics": DetectionFormat(
        "sa_runtime.detections.ultralytics:read_labels", normalized=True
    ),
}
"""A format is a file of this folder with a reader, and its row here; of two that have a suffix, the
latter counts. Without a suffix, ``recognise.py`` tells it by its content."""


def read_detections(
    path: Path | str,
    format: str | None = None,
    *,
    video: str | None = None,
    options: BoxOptions | None = None,
) -> Detections:
    """Read the boxes of one video.

    Args:
        path: the file, or a folder of label files; an empty file holds no boxes.
        format: a name of :data:`DETECTIONS`; told by suffix and content where it is ``None``.
        video: which one, of a file that holds the boxes of several.
        options: how it is read, and which boxes are used.

    Raises:
        InputError: an unknown format, or a file of several videos of which none is named.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    options = options or BoxOptions()
    if format is not None:
        options = dataclasses.replace(options, format=format)
    found = read_boxes(path, options)
    if video is None and len(found) == 1:
        return next(iter(found.values()))
    if video not in found:
        names = shown(", ".join(found))
        raise bad_value("video", video, f"{path} holds boxes of {len(found)} videos: {names}")
    return found[video]


def read_boxes(path: Path | str, options: BoxOptions | None = None) -> BoxesByVideo:
    """Read the boxes of every video of a file.

    Args:
        path: the file, or a folder of label files.
        options: how it is read, and which boxes are used.

    Returns:
        By the name of the video; a file that names none has one, of the empty name.

    Raises:
        InputError: an unknown format.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    path, options = Path(path), options or BoxOptions()
    name = options.format or _by_suffix(path) or recognise(path, options.columns)
    if name not in DETECTIONS:
        raise bad_value("format", name, f"unknown; choose from {', '.join(DETECTIONS)}")
    row = DETECTIONS[name]
    if row.normalized:
        options = dataclasses.replace(options, normalized=True)
    reader: Reader = _function(row.reader)
    collector = Collector(options, str(path))
    for chunk in reader(path, options):
        collector.add(chunk)
    names = _function(row.image_names)(path, options) if row.image_names else None
    found = collector.finish(names)
    for boxes in found.values():
        require_pixels(boxes, path)
    count = sum(map(len, found.values()))
    _log.info("%s: %d boxes, read as %s", path, count, name, extra={"boxes": count})
    return found


def _by_suffix(path: Path) -> str | None:
    suffix = path.suffix.lower()
    fits = [name for name, row in DETECTIONS.items() if suffix in row.suffixes]
    return fits[-1] if fits and not path.is_dir() else None


def _function(entry: str) -> Callable[..., Any]:
    module, _, function = entry.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
