"""SIGTERM and Ctrl-C as a normal exit: what is half written is removed on the way out."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

_GRACE_S = 5.0
"""So long after the first SIGTERM others are not heard, which would break off the cleaning up."""

_AGAIN_S = 0.02
_IMPORTING = "<frozen importlib._bootstrap>"


class _Terminated(SystemExit):
    """The exit that SIGTERM asks for."""


def exit_on_signals() -> None:
    """Raise KeyboardInterrupt at Ctrl-C and SystemExit (code 143) at SIGTERM, where it is heard.

    Libraries in C drop whatever is raised while they are imported, and callbacks of the
    interpreter (a weak reference's, a ``__del__``) can raise nothing: a signal that comes there
    comes again after it.

    Only the main thread of a process may set this; elsewhere nothing is changed, and a signal
    that is ignored or handled already stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    heard: list[float] = []

    def leave(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            _send_again(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif not heard or time.monotonic() - heard[0] > _GRACE_S:
            heard[:] = [time.monotonic()]
            raise _Terminated(128 + number)

    def not_raised(lost: Any) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, _Terminated: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            tell(lost)
            return
        heard.clear()
        _send_again(number)

    tell, sys.unraisablehook = sys.unraisablehook, not_raised
    for number, usual in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is usual:
            signal.signal(number, leave)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    """A moment later, to the main thread, which it wakes where that waits."""
    main = threading.main_thread().ident
    again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, number))
    again.daemon = True
    again.start()
