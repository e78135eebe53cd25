"""Crops whose vectors are known, embedded now and then: a service that is off notices it."""

from __future__ import annotations

import numpy as np

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.canary import Canary, canary_of, least_cosine
from sa_runtime.artefact.formats import ARTEFACTS
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import RunnerError
from sa_runtime.runners.base import BaseRunner, Runner

LEAST_COSINE = 0.99
"""Of the worst crop to its known vector: below, the runtime computes something else."""
_CROPS = 4


def known_canary(runner: Runner) -> Canary:
    """The canary crops of a runner's artefact; where it has none, its own vectors of drawn ones.

    Those tell later that the runner changed, not that it was right at first.

    Raises:
        RunnerError: it gives vectors that are not of unit length.
    """
    if isinstance(runner, BaseRunner) and runner.path.suffix in ARTEFACTS:
        found = canary_of(runner.path)
        # The crops' vectors are those of the artefact's first embedding.
        if found is not None and read_contract(runner.path).space == runner.contract.space:
            return found
    spec = runner.contract.input
    shape = (_CROPS, spec.height, spec.width, 3)
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Canary(drawn, runner.run(drawn))


def canary_cosine(runner: Runner, canary: Canary) -> float:
    """Cosine of the worst crop's vector to the known one.

    Raises:
        RunnerError: below :data:`LEAST_COSINE`, or the runtime failed.
    """
    vectors = runner.run(canary.images)
    _require_unit(vectors)
    cosine = least_cosine(vectors, canary.vectors)
    if not cosine >= LEAST_COSINE:
        raise RunnerError(
            f"its canary crops come out with cosine {cosine:.4f} to their known vectors, expected "
            f"at least {LEAST_COSINE}; export the model again, or open it with another `runtime`"
        )
    return cosine


def _require_unit(vectors: Embeddings) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    if not np.allclose(norms, 1, atol=1e-2):
        raise RunnerError(
            f"its canary crops come out with vectors of length {norms.min():.3f} to "
            f"{norms.max():.3f}, expected 1; export the model again"
        )
