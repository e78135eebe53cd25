"""TensorRT's measurements of layers, kept in a file that builds share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sa_runtime.system.files import atomic_path
from sa_runtime.system.locking import locked


class TimingCache:
    """A timing cache file. Two builds at once both add to it.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Give the builder what the file holds; a file of another GPU or version is replaced."""
        known = self.path.read_bytes() if self.path.is_file() else b""
        self._cache = config.create_timing_cache(known)
        if not config.set_timing_cache(self._cache, False):
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)

    def keep(self, config: Any) -> None:
        """Add what the builder measured to what the file holds by now."""
        cache = config.get_timing_cache()
        with locked(self.path):
            if self.path.is_file():
                # Not ours alone: another build may have written since.
                cache.combine(config.create_timing_cache(self.path.read_bytes()), True)
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(bytes(cache.serialize()))
