"""How far a run is, told to its caller after every batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sa_runtime.arrays import Embeddings
from sa_runtime.items import Row, Sink
from sa_runtime.pipeline.choice import Gone
from sa_runtime.pipeline.result import EmbedProgress
from sa_runtime.runners.base import Runner
from sa_runtime.sources.base import ItemStream, Source


class Report:
    """Counts the rows and tells the caller."""

    def __init__(
        self,
        runner: Runner,
        sources: Sequence[Source],
        items: ItemStream,
        rows: int,
        on_progress: Callable[[EmbedProgress], None],
    ) -> None:
        self._runner = runner
        self._sources = len(sources)
        gone = rows if any(isinstance(source, Gone) for source in sources) else 0
        self._rows_at_most = max(rows, gone + sum(map(len, sources)))
        self._items = items
        self._before = self._rows = rows
        self._began = time.monotonic()
        self._on_progress = on_progress
        self.add(0)

    def add(self, rows: int) -> None:
        """Count some rows more, and tell."""
        self._rows += rows
        counts, took = self._items.counts, time.monotonic() - self._began
        self._on_progress(
            EmbedProgress(
                rows=self._rows,
                rows_at_most=self._rows_at_most,
                runner=self._runner,
                source=min(self._items.source + 1, self._sources),
                sources=self._sources,
                pictures=counts.images + counts.frames,
                left_out=counts.outside + counts.invalid_boxes + counts.unreadable_images,
                rows_per_s=(self._rows - self._before) / took if took > 0 else 0.0,
            )
        )

    def beside(self, write: Sink) -> Sink:
        """A sink that also counts."""

        def both(rows: Sequence[Row], vectors: Embeddings) -> None:
            write(rows, vectors)
            self.add(len(rows))

        return both
