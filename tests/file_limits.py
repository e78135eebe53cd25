"""A limit on the size of files, which is met as a full disk is.

Python writes no bytecode meanwhile: what does not fit is cut off without an error, and whoever
imports the module later fails.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """No file of this process grows above a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def process_with_files_up_to(size_bytes: int) -> dict[str, Any]:
    """What ``subprocess`` takes for a process whose files do not."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    return {"preexec_fn": limit, "env": {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}}
