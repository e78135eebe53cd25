"""Formats of detection files by name. Looking one up imports its module."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sa_runtime.detections.base import Detections, require_pixels
from sa_runtime.errors import bad_value

_log = logging.getLogger(__name__)

Reader = Callable[[Path], Detections]
"""Reads one file; raises :class:`~sa_runtime.errors.DetectionError` where it cannot."""


class DetectionFormat(NamedTuple):
    """A row of the table.

    Attributes:
        reader: "module:function" of a :data:`Reader`.
        suffixes: of the files that are read so where no format is named.
    """

    reader: str
    suffixes: tuple[str, ...]


DETECTIONS: dict[str, DetectionFormat] = {
    "mot": DetectionFormat("sa_runtime.detections.mot:read_mot", (".txt",)),
}
"""A format is a file of this folder with a reader, and its row here."""
_ANY_OTHER = "mot"
"""What a file of an unknown suffix is read as."""


def read_detections(path: Path | str, format: str | None = None) -> Detections:
    """Read a detection file.

    Args:
        path: the file; an empty one holds no boxes.
        format: a name of :data:`DETECTIONS`; taken from the suffix where it is ``None``.

    Raises:
        InputError: an unknown format.
        DetectionError: a file that cannot be read, or a line that is not a detection, named.
    """
    path = Path(path)
    name = _format_of(path) if format is None else format
    if name not in DETECTIONS:
        raise bad_value("format", name, f"unknown; choose from {', '.join(DETECTIONS)}")
    module, _, function = DETECTIONS[name].reader.partition(":")
    reader: Reader = getattr(importlib.import_module(module), function)
    found = reader(path)
    require_pixels(found, path)
    _log.info("%s: %d boxes, read as %s", path, len(found), name, extra={"boxes": len(found)})
    return found


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    return next((name for name, row in DETECTIONS.items() if suffix in row.suffixes), _ANY_OTHER)
