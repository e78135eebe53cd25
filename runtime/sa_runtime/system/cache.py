"""Where sa-deploy keeps what it can always make again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "SA_DEPLOY_CACHE"


def cache_dir() -> Path:
    """The folder of ``$SA_DEPLOY_CACHE``, else ``sa-deploy`` in the user's cache; may not exist.

    >>> cache_dir().name != ""
    True
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sa-deploy"
