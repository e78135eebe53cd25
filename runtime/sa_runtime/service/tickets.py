"""The crops of a request on their way through a batch, and what is told of the batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from sa_runtime.arrays import Embeddings, Images

_NO_LENGTH = 1e-6


@dataclasses.dataclass(eq=False, kw_only=True)
class Ticket:
    """The crops of one request on their way.

    Attributes:
        crops: (N, H, W, 3) uint8.
        client: whose they are; clients are served in turn.
        deadline: of ``time.monotonic()``; crops that wait longer are not run.
        vectors: (N, D) float32, whole once it is over without an error.
        on_over: called when there is an answer, in the thread that has it.
        over: whether it has its answer, or is given up.
        error: instead of vectors.
        queued_s: until the first of them was run.
        infer_s: from then until the last of them was done.
    """

    crops: Images
    client: str
    deadline: float
    vectors: Embeddings
    on_over: Callable[[], None]
    over: bool = False
    error: Exception | None = None
    came: float = dataclasses.field(default_factory=time.monotonic)
    queued_s: float = 0.0
    infer_s: float = 0.0
    taken: int = 0
    done: int = 0

    @property
    def left(self) -> int:
        """Crops that no batch has taken."""
        return len(self.crops) - self.taken

    def end(self, error: Exception | None = None) -> None:
        """Hand the vectors over, or an error; nothing where nobody waits for them any more."""
        if not self.over:
            self.error = error
            self.over = True  # last: other threads look at it first
            self.on_over()

    def answer(self) -> Embeddings:
        """The vectors of a ticket that is over.

        Raises:
            Exception: that it ended with.
        """
        if self.error is not None:
            raise self.error
        return self.vectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """Crops of a ticket in a batch."""

    ticket: Ticket
    start: int
    stop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What is told of a batch that was run.

    Attributes:
        crops: in it.
        waited_s: by its oldest crop.
        seconds: that the runner took.
        failed: crops that the runner gave no vectors for.
        error: what it said of them.
        not_finite: how many of these had vectors that are not finite.
        flat: crops of one colour, as a covered camera gives them.
        vectors: (crops - failed, D) float32.
    """

    crops: int
    waited_s: float
    seconds: float
    failed: int = 0
    error: str = ""
    not_finite: int = 0
    flat: int = 0
    vectors: Embeddings = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def zero_norm(self) -> int:
        """Vectors of no length, which compare with nothing."""
        if not self.vectors.size:
            return 0
        return int((np.square(self.vectors).sum(axis=1) < _NO_LENGTH).sum())
