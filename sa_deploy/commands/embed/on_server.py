"""``sa-deploy embed --server``: a service runs the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    from sa_runtime.runners.base import Runner

WAIT_S = 60.0
"""For a service that does not answer."""


@contextmanager
def opened(
    model: Path,
    server: str | None,
    server_timeout: float | None,
    runtime: str,
    options: Mapping[str, str],
) -> Iterator[Runner | None]:
    """The model of a service; ``None`` where none is named.

    Raises:
        InputError: the service does not have it, or decides itself what an option says.
        RunnerError: the service does not answer.
    """
    if server is None:
        if server_timeout is not None:
            raise bad_value("server_timeout", server_timeout, "goes with `server`")
        yield None
        return
    given = {**({} if runtime == "auto" else {"runtime": runtime}), **options}
    for name, value in given.items():
        raise bad_value(name, value, "the service decides that; leave it out, or `server`")
    from sa_runtime.service.client import Client
    from sa_runtime.service.remote import ServerRunner

    # One that the script before has only just started is waited for, too.
    wait_s = WAIT_S if server_timeout is None else server_timeout
    with Client(server, model=str(model), timeout_s=wait_s, connect_timeout_s=wait_s) as client:
        yield ServerRunner(client)


def require_workers(split_frames: int | None) -> None:
    """Refuse to cut videos for one process.

    Raises:
        InputError: they are to be cut.
    """
    if split_frames is not None:
        raise bad_value(
            "split_frames", split_frames, "one process reads them whole; give `ray_workers`"
        )
