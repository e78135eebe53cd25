"""Which format a detection file is of, by its suffix and its first lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sa_runtime.detections.delimited import head_of
from sa_runtime.detections.names import layout_of
from sa_runtime.detections.ultralytics import is_label_line

_HEAD_BYTES = 2**16


def recognise(path: Path, columns: Mapping[str, str]) -> str:
    """The name of a format; of MOTChallenge's for what nothing tells.

    Args:
        path: a file, or a folder of label files; it need not be there.
        columns: what a column is -> its name, where the caller says so.
    """
    if path.is_dir():
        return "ultralytics"
    head = _head(path)
    if head[:4] == b"PAR1":
        return "parquet"
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text[:1] in ("{", "["):
        return "coco"
    names = head_of(text)
    if names is not None:
        layout = layout_of(names.names, columns)
        texts = not isinstance(layout, str) and (layout.label >= 0 or layout.video >= 0)
        return "csv" if texts or path.suffix.lower() in (".csv", ".tsv") else "mot"
    line = next((line for line in text.splitlines() if line.strip()), "")
    return "ultralytics" if is_label_line(line.strip()) else "mot"


def _head(path: Path) -> bytes:
    """The first bytes; none of what cannot be read, which its reader names."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
