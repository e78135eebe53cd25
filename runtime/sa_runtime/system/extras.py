"""Optional packages: imported where needed, named with their extra where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from sa_runtime.errors import MissingPackageError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module.

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
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        raise MissingPackageError(
            f"{purpose} needs the package {module!r}, which is not installed "
            f"(missing: {exc.name!r}). Install it with: pip install 'sa-deploy[{extra}]'",
            name=exc.name,
        ) from exc
