"""How far the vectors of the last requests are from those that the model was proven on."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.formats import ARTEFACTS
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.artefact.reference import Reference, compare, reference_of
from sa_runtime.runners.base import BaseRunner
from sa_runtime.service.models import Served

WINDOW = 512
"""Vectors that are compared."""
LEAST = 64
"""Vectors below which nothing is said."""


class Drift:
    """The last vectors of every model, and their distance from its reference statistics."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[Embeddings]] = {}
        self._references: dict[tuple[str, int], Reference | None] = {}
        self._lock = threading.Lock()

    def add(self, served: Served, vectors: Embeddings) -> None:
        """Keep the vectors of a batch, (N, D) float32."""
        with self._lock:
            recent = self._recent.setdefault(served.name, deque())
            if recent and recent[0].shape[1:] != vectors.shape[1:]:
                recent.clear()  # another model has its place
            recent.append(vectors)
            while sum(map(len, recent)) - len(recent[0]) >= WINDOW:
                recent.popleft()

    def measure(self, served: Served) -> dict[str, float]:
        """By kind of drift; empty where the artefact has no statistics or vectors are few."""
        reference = self._reference(served)
        with self._lock:
            recent = list(self._recent.get(served.name, ()))
        if reference is None or sum(map(len, recent)) < LEAST:
            return {}
        return compare(np.concatenate(recent)[-WINDOW:], reference)

    def _reference(self, served: Served) -> Reference | None:
        key = (served.name, served.version)
        if key not in self._references:
            self._references[key] = _found(served)
        return self._references[key]


def _found(served: Served) -> Reference | None:
    runner = served.runner
    if not isinstance(runner, BaseRunner) or runner.path.suffix not in ARTEFACTS:
        return None
    # The statistics are those of the artefact's first embedding.
    if read_contract(runner.path).space != served.contract.space:
        return None
    return reference_of(runner.path)
