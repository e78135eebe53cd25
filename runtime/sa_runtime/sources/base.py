"""What a source is, and the stream of the items of several."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detectors.base import Detector
from sa_runtime.errors import InputError
from sa_runtime.image_files import MAX_PIXELS
from sa_runtime.items import Counts, Item, Position

OnSkip = Callable[[InputError], None]
"""Is given what is wrong with an image that is left out."""


class Place(NamedTuple):
    """Behind an item of a source: its :attr:`Item.done` and the source's ``digest`` of it."""

    done: int = 0
    digest: str = ""


START = Place()


def ignore(error: InputError) -> None:
    """Leave an image out silently; it is counted all the same."""


@runtime_checkable
class Source(Protocol):
    """Pictures with people in them; its length is the most rows it can give."""

    def __len__(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """What decides the rows, as JSON values; a run that goes on compares it."""

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The items behind a place, in order; what is met on the way is added to ``counts``."""

    def digest(self, item: Item) -> str:
        """Hash of an item's picture where its number does not lead back to it; else empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is opened.

    Attributes:
        detections: its boxes, for a kind that needs them.
        strict: make an image of a folder that cannot be decoded an error.
        camera: goes into every row.
        max_pixels: of the largest image that is decoded.
        boxes: how detection files are read, and which boxes are used.
        detector: finds the people of videos without boxes, and of live sources.
        live: which frames of a live source are used, see :data:`sa_runtime.sources.live.LiveMode`.
        stop: ends live sources.
    """

    detections: Detections | None = None
    strict: bool = False
    camera: str | None = None
    max_pixels: int = MAX_PIXELS
    boxes: BoxOptions = dataclasses.field(default_factory=BoxOptions)
    detector: Detector | None = None
    live: Literal["latest", "all"] = "latest"
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)


class SourceKind(Protocol):
    """The class of a source, as :data:`sa_runtime.sources.table.SOURCES` names it.

    Attributes:
        needs_detections: whether each source of the kind is given a detection file.
    """

    needs_detections: ClassVar[bool]

    @classmethod
    def takes(cls, location: str) -> bool:
        """Whether a path or an address stands for a source of this kind."""

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Source:
        """The source; everything that cannot work is refused here, before a model runs."""


class ItemStream:
    """The items of several sources, one after the other.

    Args:
        sources: in the order in which they are taken.
        position: where to begin.
        counts: what earlier runs met up to there.
        on_skip: is given what is wrong with images that are left out.

    Attributes:
        counts: what was met up to the last item taken.
        ended: whether every source has come to its end.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        position: Position | None = None,
        counts: Counts | None = None,
        on_skip: OnSkip = ignore,
    ) -> None:
        self.counts = counts or Counts()
        self.ended = False
        self._sources = sources
        self._start = position or Position()
        self._index = self._start.source
        self._last: Item | None = None
        self._on_skip = on_skip
        self._items = self._all()
        self._taking = threading.Lock()

    @property
    def source(self) -> int:
        """Index of the source that is being read; their number at the end."""
        return self._index

    @property
    def position(self) -> Position:
        """Just behind the last item taken."""
        if self._last is not None:
            digest = self._sources[self._index].digest(self._last)
            return Position(source=self._index, done=self._last.done, digest=digest)
        return self._start if self._index == self._start.source else Position(source=self._index)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._taking:
            return next(self._items)

    def close(self) -> None:
        """Close the source that is open; closing twice is allowed.

        Another thread that is taking an item is waited for, as an interrupted run must.
        """
        with self._taking:
            self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _all(self) -> Generator[Item, None, None]:
        after = Place(self._start.done, self._start.digest)
        for index, source in enumerate(self._sources[self._index :], self._index):
            self._index = index
            for item in source.items(self.counts, after=after, on_skip=self._on_skip):
                self._last = item
                yield item
            self._last, after = None, START
        self._index = len(self._sources)
        self.ended = True
