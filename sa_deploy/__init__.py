"""Floor 4: the command line and the public names of sa-deploy.

>>> from sa_deploy import Embedder  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Contract": "sa_runtime.artefact.contract:Contract",
    "Embedder": "sa_runtime.embedder:Embedder",
    "SaDeployError": "sa_runtime.errors:SaDeployError",
    "open_runner": "sa_runtime.runners.table:open_runner",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import sa_deploy`` stays light."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sa-deploy")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sa_deploy' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
