"""Runtimes by name. Looking one up imports that one module."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sa_runtime.errors import InputError
from sa_runtime.runners.base import BaseRunner

RUNNERS: dict[str, str] = {
    "onnxruntime": "sa_runtime.runners.onnxruntime:OnnxRuntimeRunner",
}
SUFFIXES: dict[str, tuple[str, ...]] = {".onnx": ("onnxruntime",)}
"""Runtimes that open a file of this suffix, fastest first."""


def open_runner(model: Path | str, runtime: str = "auto", **options: Any) -> BaseRunner:
    """Open an artefact on a runtime.

    Args:
        model: the artefact.
        runtime: a name of :data:`RUNNERS`, or ``auto``.
        options: passed to the runner.

    Raises:
        InputError: an unknown runtime, a missing file, or a file no runtime opens.
        MissingPackageError: the runtime is not installed.
        ContractError: the file carries no readable contract.
    """
    path = Path(model)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a model that `sa-deploy export` wrote")
    if runtime == "auto":
        candidates = SUFFIXES.get(path.suffix)
        if candidates is None:
            raise InputError(
                f"{path}: no runtime opens {path.suffix or 'a file without suffix'!r}; "
                f"expected {', '.join(SUFFIXES)} as `sa-deploy export` writes them"
            )
        runtime = candidates[0]
    if runtime not in RUNNERS:
        raise InputError(f"--runtime {runtime}: unknown; choose from auto, {', '.join(RUNNERS)}")
    module, _, name = RUNNERS[runtime].partition(":")
    runner: BaseRunner = getattr(importlib.import_module(module), name)(path, **options)
    return runner
