"""Optional packages: imported where needed, named with their extra where they are missing."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any

from sa_runtime.errors import MissingPackageError

_SENDERS = {"openvino": "openvino_telemetry"}
"""Packages whose import sends an event to their makers, and the module that sends it.

OpenVINO's goes to Google Analytics, by a process that waits up to three seconds for an answer."""

_ABOVE = ("train", "export")
"""Extras of the floors above, whose modules import what they need at their top."""


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
        raise _missing(exc.name or module, extra=extra, purpose=purpose) from exc


def known_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """An import that failed, as the error that names the extra which brings the package.

    For code that imports what its whole floor needs, torch above all, at the top of its modules.

    Args:
        error: what Python raised.

    Returns:
        ``None`` where no extra of sa-deploy brings the package: its absence is a defect then.
    """
    package = (error.name or "").partition(".")[0]
    extras = _extras_with(package) if package else []
    wanted = [extra for extra in extras if extra in _ABOVE] or extras[:1]
    if not wanted:
        return None
    return _missing(package, extra=",".join(wanted), purpose="this")


def _missing(package: str, *, extra: str, purpose: str) -> MissingPackageError:
    return MissingPackageError(
        f"{purpose} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install 'sa-deploy[{extra}]'",
        name=package,
    )


def _extras_with(package: str) -> list[str]:
    """The extras of the installed sa-deploy that name a package, in the order of its metadata."""
    try:
        needed = metadata.requires("sa-deploy") or []
    except metadata.PackageNotFoundError:
        return []
    found = [re.match(rf"{re.escape(package)}\b.*; extra == ['\"]([\w-]+)", one) for one in needed]
    return [match[1] for match in found if match is not None]


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
