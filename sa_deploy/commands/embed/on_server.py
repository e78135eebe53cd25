"""``sa-deploy embed --server``: a service runs the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    from sa_runtime.runners.base import Runner


@contextmanager
def opened(
    model: Path, server: str | None, runtime: str, options: Mapping[str, str]
) -> Iterator[Runner | None]:
    """The model of a service; ``None`` where none is named.

    Raises:
        InputError: the service does not have it, or decides itself what an option says.
        RunnerError: the service does not answer.
    """
    if server is None:
        yield None
        return
    given = {**({} if runtime == "auto" else {"runtime": runtime}), **options}
    for name, value in given.items():
        raise bad_value(name, value, "the service decides that; leave it out, or `server`")
    from sa_runtime.service.client import Client
    from sa_runtime.service.remote import ServerRunner

    with Client(server, model=str(model)) as client:
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
