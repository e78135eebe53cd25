"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sa_runtime.errors import RunnerError, bad_value
from sa_runtime.system.extras import require


@contextmanager
def connected(address: str | None, *, purpose: str) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster until the block ends.

    Args:
        address: of a running cluster, ``auto`` for this machine's; a new one on this machine by
            default, which ends with the block.
        purpose: what it is for.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: no such cluster.
        RunnerError: none can be started here.
    """
    ray = require("ray", extra="scale", purpose=purpose)
    numbers = (signal.SIGINT, signal.SIGTERM)
    stops = {number: signal.getsignal(number) for number in numbers}
    try:
        ray.init(
            address=address or "local",  # never one that another program left
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except ConnectionError as exc:
        raise bad_value(
            "address", address, f"no cluster answers ({exc}); start one with `ray start`"
        ) from exc
    except Exception as exc:  # Ray's own are of the plainest kind
        raise RunnerError(
            f"Ray does not start here: {str(exc).strip().partition(chr(10))[0][:300]}; try "
            "`ray start --head` by itself, and pass `address=auto`"
        ) from exc
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in stops.items():
                signal.signal(number, handler)  # Ray's own would end this process by SIGABRT
        yield ray
    finally:
        ray.shutdown()
