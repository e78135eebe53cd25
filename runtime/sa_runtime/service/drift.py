"""How far the vectors of the last requests are from those that the model was proven on."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.artefact.formats import ARTEFACTS
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.artefact.reference import Reference, compare, reference_of
from sa_runtime.runners.base import BaseRunner, Runner

WINDOW = 512
"""Vectors that are compared."""
LEAST = 64
"""Vectors below which nothing is said."""


class Watched(Protocol):
    """A model whose vectors are compared with the statistics that its artefact held."""

    @property
    def name(self) -> str:
        """That requests call it by."""

    @property
    def reference(self) -> Reference | None:
        """The statistics; ``None`` where it had none."""

    @property
    def contract(self) -> Contract:
        """What its vectors mean."""


class Drift:
    """The last vectors of every model, and their distance from its reference statistics."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[Embeddings]] = {}
        self._spaces: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, served: Watched, vectors: Embeddings) -> None:
        """Keep the vectors of a batch, (N, D) float32."""
        space = served.contract.space
        with self._lock:
            recent = self._recent.setdefault(served.name, deque())
            if self._spaces.setdefault(served.name, space) != space:
                recent.clear()  # another model has its place
                self._spaces[served.name] = space
            recent.append(vectors)
            while sum(map(len, recent)) - len(recent[0]) >= WINDOW:
                recent.popleft()

    def measure(self, served: Watched) -> dict[str, float]:
        """By kind of drift; empty where the artefact has no statistics or vectors are few."""
        with self._lock:
            same = self._spaces.get(served.name) == served.contract.space
            recent = list(self._recent.get(served.name, ())) if same else []
        if served.reference is None or sum(map(len, recent)) < LEAST:
            return {}
        return compare(np.concatenate(recent)[-WINDOW:], served.reference)


def known_reference(runner: Runner) -> Reference | None:
    """The statistics in a runner's artefact; ``None`` where it has none.

    Raises:
        SaDeployError: the artefact cannot be read any more.
    """
    if not isinstance(runner, BaseRunner) or runner.path.suffix not in ARTEFACTS:
        return None
    # The statistics are those of the artefact's first embedding.
    if read_contract(runner.path).space != runner.contract.space:
        return None
    return reference_of(runner.path)
