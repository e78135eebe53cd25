"""How long OpenMP threads spin while they wait: short, so that others get the cores."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = 4000
"""Turns of libgomp's waiting loop, some tens of microseconds; its own 300,000 are milliseconds."""
_OWN_WORD = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def share_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of torch go to sleep soon, unless the user has set how they wait.

    libgomp reads it when it is loaded, so that this must come before torch. Without it a training
    beside another one on the same two cores takes five times as long, not twice: threads that
    have their time slice spin for those that have not.

    >>> environment = {}
    >>> share_cores(environment)
    >>> environment
    {'GOMP_SPINCOUNT': '4000'}
    >>> environment = {"OMP_WAIT_POLICY": "active"}
    >>> share_cores(environment)
    >>> environment
    {'OMP_WAIT_POLICY': 'active'}
    """
    if not any(name in environment for name in _OWN_WORD):
        environment["GOMP_SPINCOUNT"] = str(SPINS)
