"""SIGTERM as a normal exit: what is half written is removed on the way out."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType

_GRACE_S = 5.0
"""So long after the first SIGTERM others are not heard, which would break off the cleaning up."""


def exit_on_sigterm() -> None:
    """Raise SystemExit where SIGTERM comes: exit code 143, as without it, but not at once.

    Only the main thread of a process may set this; elsewhere, and where SIGTERM is ignored or
    handled already, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    heard: list[float] = []

    def leave(number: int, frame: FrameType | None) -> None:
        if heard and time.monotonic() - heard[0] < _GRACE_S:
            return
        heard[:] = [time.monotonic()]
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
