"""Shorter vectors: principal components fitted on one set of vectors, and fewer bytes a number.

Shape suffixes: N vectors, D dimensions, K kept ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.evaluation import labels_of
from sa_runtime.retrieval.metrics import evaluate_vectors
from sa_runtime.retrieval.vectors import Floats, Vectors

Stored = Literal["float32", "float16", "int8"]
"""How a number is stored; ``int8`` has one scale for a whole set of vectors."""
WHITENING = 1.0
"""Power of the deviation that a component is divided by: 0 leaves lengths, 1 makes all equal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """``unit((x - mean) @ matrix)``.

    Attributes:
        mean: (D,) float32.
        matrix: (D, K) float32.
        kept: share of the variance that the K components hold.
    """

    mean: Floats
    matrix: Floats
    kept: float

    def __call__(self, vectors: Vectors) -> Floats:
        """(N, D) vectors to (N, K) float32, rows of unit length."""
        moved = (np.asarray(vectors, np.float32) - self.mean) @ self.matrix
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        return np.asarray(moved / np.maximum(length, 1e-12), np.float32)

    @property
    def sha256(self) -> str:
        """Hash of what it does."""
        return hashlib.sha256(self.mean.tobytes() + self.matrix.tobytes()).hexdigest()


def fit_projection(vectors: Vectors, dim: int, *, whitening: float = WHITENING) -> Projection:
    """Principal components of some vectors, whitened.

    Jégou and Chum, *Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening* (ECCV 2012), with a power of the deviation, since full whitening lifts what the last
    components hold of noise.

    Args:
        vectors: (N, D), of other people than are sought later.
        dim: components to keep, K.
        whitening: power from 0 (none) to 1 (all components alike).

    Raises:
        InputError: not vectors, fewer of them than components, or a value out of range.

    >>> found = fit_projection(np.random.default_rng(0).normal(size=(50, 8)), 3)
    >>> found(np.eye(8)).shape
    (8, 3)
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError(f"vectors of shape {vectors.shape}: expected (N, D), finite")
    count, width = vectors.shape
    if not 1 <= dim <= width:
        raise bad_value("dim", dim, f"expected 1 to {width}, the numbers of a vector")
    if not 0 <= whitening <= 1:
        raise bad_value("whitening", whitening, "expected 0 to 1")
    if count <= dim:
        raise InputError(
            f"{count} vectors to fit {dim} components on: expected more, several times as many; "
            "pass a smaller `dim`, or embed more images"
        )
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    # The smaller of both products has the same eigenvalues.
    if width <= count:
        values, basis = np.linalg.eigh(centred.T @ centred)
        basis = basis[:, ::-1][:, :dim]
    else:
        values, left = np.linalg.eigh(centred @ centred.T)
        basis = centred.T @ left[:, ::-1][:, :dim]
        basis /= np.linalg.norm(basis, axis=0)
    variance = np.maximum(values[::-1], 0)
    deviation = np.sqrt(np.maximum(variance[:dim], variance[0] * 1e-12))
    # Signs are free: the largest weight of each component is positive.
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(dim)])
    scaled = basis * (deviation[0] / deviation) ** whitening
    return Projection(
        mean=mean.astype(np.float32),
        matrix=scaled.astype(np.float32),
        kept=float(variance[:dim].sum() / variance.sum()),
    )


def as_stored(vectors: Floats, kind: Stored, scale: float | None = None) -> Floats:
    """What is left of vectors after storing them.

    Args:
        vectors: (N, K), rows of unit length.
        kind: how.
        scale: of int8, the largest number that it can hold; the vectors' own by default.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in get_args(Stored):
        raise bad_value("kind", kind, f"expected one of {', '.join(get_args(Stored))}")
    if kind == "float16":
        return vectors.astype(np.float16).astype(np.float32)
    if kind == "int8":
        unit = (np.abs(vectors).max() if scale is None else scale) / 127
        return np.asarray(np.clip(np.round(vectors / unit), -127, 127) * unit, np.float32)
    return vectors


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Figures of vectors of some size.

    Attributes:
        dim: numbers in a vector.
        stored: how each is stored.
        size_bytes: of a vector.
        compressed: whether it went through a projection.
        mAP, rank1: fractions.
    """

    dim: int
    stored: Stored
    size_bytes: int
    compressed: bool
    mAP: float
    rank1: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "dim": self.dim,
            "stored": self.stored,
            "size_bytes": self.size_bytes,
            "compressed": self.compressed,
            "mAP": self.mAP,
            "rank1": self.rank1,
        }


def size_curve(
    fitted_on: Vectors,
    query: Vectors,
    gallery: Vectors,
    dataset: ReidDataset,
    dims: Sequence[int],
    *,
    whitening: float = WHITENING,
) -> list[CurvePoint]:
    """Figures against bytes: the whole vectors, then each number of components.

    Args:
        fitted_on: (N, D) vectors of other people.
        query: (Q, D) vectors of ``dataset.query``.
        gallery: (G, D) vectors of ``dataset.gallery``.
        dataset: labels of both.
        dims: components to try, at most D and fewer than N.
        whitening: see :func:`fit_projection`.

    Raises:
        InputError: as :func:`fit_projection`, or no query with a match.
    """
    largest = fit_projection(fitted_on, max(dims), whitening=whitening)
    labels = labels_of(dataset.query), labels_of(dataset.gallery)
    points = []
    for dim in (None, *sorted(dims, reverse=True)):
        if dim is None:
            sides = [np.asarray(side, np.float32) for side in (query, gallery)]
        else:
            part = Projection(mean=largest.mean, matrix=largest.matrix[:, :dim], kept=0.0)
            sides = [part(side) for side in (query, gallery)]
        scale = float(np.abs(sides[1]).max())
        for kind, width in (("float32", 4), ("float16", 2), ("int8", 1)):
            stored: NDArray[Any] = as_stored(sides[1], kind, scale)  # type: ignore[arg-type]
            asked = as_stored(sides[0], kind, scale)  # type: ignore[arg-type]
            result = evaluate_vectors(asked, labels[0], stored, labels[1])
            points.append(
                CurvePoint(
                    dim=sides[0].shape[1],
                    stored=kind,  # type: ignore[arg-type]
                    size_bytes=width * sides[0].shape[1],
                    compressed=dim is not None,
                    mAP=result.mAP,
                    rank1=result.rank(1),
                )
            )
    return points
