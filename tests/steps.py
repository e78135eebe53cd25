"""A process that is killed, or finds its disk full, before each of its changes of files in turn."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

Fault = Literal["killed", "full"]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link"}
_NEED_SPACE = {"os.mkdir", "os.rename", "os.fsync", "open"}
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def every_fault(work: Callable[[], object], fault: Fault, *, stride: int = 1) -> Iterator[int]:
    """Run work in a process of its own that meets a fault before its first change, its second, ...

    A change is one of names, a file that is opened to be written, or the wait for what was
    written.

    Args:
        work: what is done; each time on what the caller put there.
        fault: ``killed`` by SIGKILL; ``full``: no space is left from then on, for what needs some.
        stride: one change of so many meets it.

    Yields:
        The number of the change, after its run; the work that comes to its end is the last one.
    """
    step = 0
    while True:
        code = _run(work, step, fault)
        if code == 0:
            assert step > 0, "the work changes nothing"
            return
        assert code in (-signal.SIGKILL, 2), f"change {step}: ended by {code}"
        yield step
        step += stride


def _run(work: Callable[[], object], step: int, fault: Fault) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads of the tests do nothing meanwhile
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        _meet(step, fault)
        work()
        code = 0
    except OSError as error:
        code = 2 if error.errno == errno.ENOSPC and error.filename else 1
        if code == 1:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _meet(step: int, fault: Fault) -> None:
    met = 0

    def change(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal met
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITE):
            return
        if event not in _CHANGES and event not in ("open", "os.fsync"):
            return
        if fault == "full" and event not in _NEED_SPACE:
            return
        met += 1
        if met <= step:
            return
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *_name(arguments))

    def sync(fd: Any) -> None:
        change("os.fsync", ())
        _sync(fd)

    _sync = os.fsync
    os.fsync = sync
    sys.addaudithook(change)


def _name(arguments: tuple[Any, ...]) -> list[str]:
    """What the system's error would name: nothing of an open file."""
    with contextlib.suppress(TypeError, IndexError):
        return [os.fspath(arguments[0])]
    return []
