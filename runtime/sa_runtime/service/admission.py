"""Who may join the queue before a model, and for whom a place in it is kept."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque

PLACE_S = 0.1
"""How long a place is kept for a body that is still on its way: a slow one may lose it."""
CALM_S = 1.0
"""Without a refusal, at least, until a burst may fill the queue again."""
_SMOOTHING = 0.05
"""Weight of a request in the usual number of crops."""


@dataclasses.dataclass(eq=False, slots=True)
class Place:
    """Kept in the queue for a request that is still being read."""

    crops: int
    until: float
    over: bool = False


class Admission:
    """Decides by what waits, before a body is read and again when its crops are known.

    A burst may fill the queue. Where somebody was refused a moment ago more is asked than the model
    can do, and a long queue would only let all wait: then as many may wait as are run at a time, so
    that those who are let in wait no longer than at full load. Where the model runs out of work all
    the same, as between bursts, for longer than half of such a batch takes, the queue is too short
    for them, and a burst may fill it again.

    Args:
        most: crops that may wait.
        at_a_time: that are run at a time.

    Attributes:
        bound: crops that might wait when somebody was refused last.
    """

    def __init__(self, most: int, at_a_time: int) -> None:
        self.most = self.bound = most
        self._few = min(at_a_time, most)
        self._refused = -math.inf
        self._idle = math.inf  # since when
        self._usual = 1.0
        self._places: deque[Place] = deque()
        self._kept = 0
        self._lock = threading.Lock()

    def limit(self, calm_s: float = 0.0) -> int:
        """Crops that may wait now.

        Args:
            calm_s: that a full queue takes, and what is run before it.
        """
        now = time.monotonic()
        if now - self._idle > calm_s * self._few / (self._few + self.most) / 2:
            self._refused = -math.inf
        return self.most if now - self._refused > max(calm_s, CALM_S) else self._few

    def idle(self) -> None:
        """The model has nothing to do from now on, or had nothing before."""
        self._idle = min(self._idle, time.monotonic())

    def busy(self) -> None:
        """The model has something to do."""
        self._idle = math.inf

    def keep(self, waiting: int, calm_s: float) -> Place | None:
        """A place for a request of which only the headers are known; ``None`` where there is none.

        Args:
            waiting: crops in the queue.
            calm_s: as of :meth:`limit`.
        """
        with self._lock:
            crops = max(1, round(self._usual))
            if not self._fits(waiting, 1, calm_s):
                return None
            place = Place(crops, time.monotonic() + PLACE_S)
            self._places.append(place)
            self._kept += crops
            return place

    def give_up(self, place: Place) -> bool:
        """Keep a place no longer; whether it was still kept."""
        with self._lock:
            if place.over:
                return False
            place.over = True
            self._kept -= place.crops
            return True

    def admits(self, waiting: int, crops: int, calm_s: float, place: Place | None = None) -> bool:
        """Whether crops may wait; their place, if one was kept for them, is given up.

        Whoever has a place was let in: his crops may be more than was expected.
        """
        let_in = place is not None and self.give_up(place) and waiting + crops <= self.most
        with self._lock:
            self._usual += (crops - self._usual) * _SMOOTHING
            return let_in or self._fits(waiting, crops, calm_s)

    def _fits(self, waiting: int, crops: int, calm_s: float) -> bool:
        now = time.monotonic()
        while self._places and (self._places[0].over or self._places[0].until <= now):
            place = self._places.popleft()
            if not place.over:
                place.over = True
                self._kept -= place.crops
        ahead = waiting + self._kept
        # Under too much load, too, a request of many people has the chance of one of few.
        limit = self.limit(calm_s)
        fits = ahead + crops <= self.most and ahead < limit
        if not fits:
            self._refused, self.bound = now, limit
        return fits
