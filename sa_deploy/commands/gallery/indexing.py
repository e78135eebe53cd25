"""How far the index of a gallery is, which takes minutes for millions of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sa_deploy.output import progress

if TYPE_CHECKING:
    from sa_runtime.gallery.approximate import OnIndex


def told(advance: Callable[..., None]) -> OnIndex:
    """A callback for ``Gallery`` that moves a bar of other work on to the building of an index."""

    def on_index(done: int, total: int) -> None:
        advance(completed=done, total=total, description="build the index")

    return on_index


@contextmanager
def indexing(work: str) -> Iterator[OnIndex]:
    """Progress of a change by which an index may be built anew."""
    with progress(work, None, unit="row") as advance:
        yield told(advance)
