"""Optional packages: imported where needed, named with their extra where they are missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from sa_runtime.errors import MissingPackageError

_SENDERS = {"openvino": "openvino_telemetry"}
"""Packages whose import sends an event to their makers, and the module that sends it.

OpenVINO's goes to Google Analytics, by a process that waits up to three seconds for an answer."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, as :func:`imported` does.

    Args:
        module: import name, for example ``onnxruntime``.
        extra: the extra of sa-deploy that installs it.
        purpose: what needs it, for the message.

    Raises:
        MissingPackageError: the module is not installed.

    >>> require("json", extra="cpu", purpose="an example").loads("1")
    1
    """
    try:
        return imported(module)
    except ModuleNotFoundError as exc:
        raise MissingPackageError(
            f"{purpose} needs the package {module!r}, which is not installed "
            f"(missing: {exc.name!r}). Install it with: pip install 'sa-deploy[{extra}]'",
            name=exc.name,
        ) from exc


def imported(module: str) -> ModuleType:
    """Import a module without what it would send to its makers.

    Programs that have imported such a package before, or the module that sends, are left alone.

    Raises:
        ModuleNotFoundError: it, or what it needs, is not installed.
    """
    with _hidden(_SENDERS.get(module.partition(".")[0])):
        return importlib.import_module(module)


@contextmanager
def _hidden(module: str | None) -> Iterator[None]:
    """A module as if it were not installed, unless it is imported already."""
    modules: dict[str, Any] = sys.modules
    if module is None or module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        modules.pop(module, None)
