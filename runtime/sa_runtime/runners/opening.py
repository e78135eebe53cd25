"""Artefacts opened on the runtime that was asked for, or on the fastest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sa_runtime.runners.auto import open_fastest
from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.table import open_on


def open_runner(model: Path | str, runtime: str = "auto", **options: Any) -> BaseRunner:
    """Open an artefact on a runtime.

    Args:
        model: the artefact.
        runtime: a name of :data:`sa_runtime.runners.table.RUNNERS`, or ``auto`` for the fastest
            that this machine has (:func:`sa_runtime.runners.auto.open_fastest`).
        options: passed to the runner.

    Raises:
        InputError: an unknown runtime or option, a missing file, or one the runtime does not open.
        MissingPackageError: the runtime is not installed.
        ContractError: the file carries no readable contract.
    """
    path = Path(model)
    if runtime == "auto":
        return open_fastest(path, **options)
    return open_on(runtime, path, **options)
