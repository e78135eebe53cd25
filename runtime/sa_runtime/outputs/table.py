"""Outputs by the suffix of what is written. Looking one up imports its module."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from sa_runtime.errors import bad_value
from sa_runtime.outputs.base import OutputKind

FOLDER = ""
OUTPUTS: dict[str, str] = {
    ".parquet": "sa_runtime.outputs.parquet:ParquetFile",
    ".npz": "sa_runtime.outputs.npz:NpzFile",
    ".csv": "sa_runtime.outputs.csv:CsvFile",
    ".lancedb": "sa_runtime.outputs.lance:LanceFolder",
    ".qdrant": "sa_runtime.outputs.qdrant:QdrantFolder",
    FOLDER: "sa_runtime.outputs.folder:ShardFolder",
}
"""Suffix -> class of an output; :data:`FOLDER` stands for folders, of whatever name."""
_DATABASES = (".lancedb", ".qdrant")
"""Suffixes of folders that hold a database."""


def output_kind(target: str | os.PathLike[str]) -> OutputKind:
    """The class of an output.

    Args:
        target: file or folder; a folder need not exist where its name has no suffix or ends in
            a slash.

    Raises:
        InputError: a suffix or an address that nothing here writes.
    """
    text = os.fspath(target)
    suffix = Path(text).suffix.lower()
    if suffix not in _DATABASES and (text.endswith("/") or Path(text).is_dir()):
        suffix = FOLDER
    if suffix not in OUTPUTS or "://" in text or text == "-":
        expected = ", ".join(f"NAME{suffix}" for suffix in OUTPUTS if suffix)
        rule = f"cannot be written to; expected {expected} or a folder, NAME/"
        raise bad_value("out", text, rule)
    module, _, name = OUTPUTS[suffix].partition(":")
    kind: OutputKind = getattr(importlib.import_module(module), name)
    return kind


def lasts(kind: OutputKind) -> bool:
    """Whether outputs of a kind can go on after a stop, part by part."""
    return hasattr(kind, "stored")
