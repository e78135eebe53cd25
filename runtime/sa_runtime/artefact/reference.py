"""Statistics of the vectors that an artefact was proven on, to notice that those of today differ.

The exporter stores what :func:`make_reference` returns under :data:`REFERENCE_KEY` in the
artefact's metadata, beside the contract.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.metadata import metadata_text
from sa_runtime.errors import ContractError

REFERENCE_KEY = "sa_deploy.reference"
SPECTRUM = 16
"""Largest eigenvalues of the covariance that are kept."""
NEIGHBOURS = 256
"""Vectors among which the nearest is looked for: the distance shrinks as they become more."""
LEAST = 16
"""Vectors below which nothing is known of a distribution."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """Statistics of N unit vectors of D numbers.

    Attributes:
        count: N.
        mean: (D,) float32.
        variance: sum of the variances of all D numbers: mean squared distance from the mean.
        spectrum: the largest eigenvalues of the covariance as shares of ``variance``, descending.
        nearest: median Euclidean distance of a vector to its nearest neighbour among
            ``neighbours``.
        neighbours: number of vectors among which that was looked for.
    """

    count: int
    mean: NDArray[np.float32]
    variance: float
    spectrum: tuple[float, ...]
    nearest: float
    neighbours: int


def statistics_of(vectors: Embeddings, *, neighbours: int = NEIGHBOURS) -> Reference:
    """The statistics of (N, D) unit vectors, N at least 2.

    >>> statistics_of(np.eye(4, dtype=np.float32)).variance
    0.75
    """
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    # The smaller of the two products has the same eigenvalues, but for zeros.
    wide = len(exact) < exact.shape[1]
    product = centred @ centred.T if wide else centred.T @ centred
    eigenvalues = np.maximum(np.linalg.eigvalsh(product)[::-1][:SPECTRUM], 0) / len(exact)
    variance = float(np.square(centred).sum() / len(exact))
    few = exact[np.linspace(0, len(exact) - 1, min(neighbours, len(exact))).astype(int)]
    cosines = few @ few.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.sqrt(np.maximum(2 - 2 * cosines.max(axis=1), 0))
    return Reference(
        count=len(exact),
        mean=mean.astype(np.float32),
        variance=variance,
        spectrum=tuple((eigenvalues / max(variance, 1e-12)).tolist()),
        nearest=float(np.median(nearest)),
        neighbours=len(few),
    )


def compare(vectors: Embeddings, reference: Reference) -> dict[str, float]:
    """How far vectors are from a reference, by kind; near 0 where nothing has changed.

    ``mean``: distance of the means, in standard deviations of the reference. ``variance`` and
    ``nearest``: logarithm to base 2 of the ratio, so that -1 is half and 1 twice as much.
    ``spectrum``: half the sum of the differences of the eigenvalues' shares, from 0 to 1.

    Args:
        vectors: (N, D) float32, rows of unit length, N at least 2.
        reference: of the same model.
    """
    now = statistics_of(vectors, neighbours=reference.neighbours)
    shift = np.linalg.norm(now.mean.astype(np.float64) - reference.mean.astype(np.float64))
    length = max(len(now.spectrum), len(reference.spectrum))
    shares = [np.pad(s.spectrum, (0, length - len(s.spectrum))) for s in (now, reference)]
    return {
        "mean": float(shift / max(np.sqrt(reference.variance), 1e-6)),
        "variance": _log_ratio(now.variance, reference.variance),
        "nearest": _log_ratio(now.nearest, reference.nearest),
        "spectrum": float(np.abs(shares[0] - shares[1]).sum() / 2),
    }


def _log_ratio(now: float, before: float) -> float:
    return float(np.log2(max(now, 1e-6) / max(before, 1e-6)))


def make_reference(vectors: Embeddings) -> str:
    """The statistics of (N, D) unit vectors as text; empty where N is too small to say anything.

    >>> text = make_reference(np.eye(20, dtype=np.float32))
    >>> read_reference(text).count
    20
    >>> make_reference(np.eye(4, dtype=np.float32))
    ''
    """
    if len(vectors) < LEAST:
        return ""
    found = statistics_of(vectors)
    packed = base64.b64encode(found.mean.astype("<f4").tobytes()).decode()
    return json.dumps({**dataclasses.asdict(found), "mean": packed})


def read_reference(text: str, *, source: str = "reference") -> Reference:
    """Inverse of :func:`make_reference`.

    Args:
        text: what it returned.
        source: file it came from, for the message.

    Raises:
        ContractError: something else.
    """
    try:
        fields = json.loads(text)
        mean = np.frombuffer(base64.b64decode(fields.pop("mean"), validate=True), "<f4")
        fields["spectrum"] = tuple(map(float, fields["spectrum"]))
        return Reference(mean=mean.astype(np.float32), **fields)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ContractError(
            f"{source}: its reference statistics cannot be read ({exc}); export the model again"
        ) from exc


def reference_of(path: Path) -> Reference | None:
    """The statistics that an artefact carries, ``None`` where it carries none.

    Raises:
        InputError: not an artefact of this project.
        ContractError: statistics that cannot be read.
    """
    text = metadata_text(path, REFERENCE_KEY)
    return read_reference(text, source=str(path)) if text else None
