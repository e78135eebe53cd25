"""Canary crops: a few crops and their vectors inside an artefact, to notice a runtime that is off.

The exporter stores what :func:`make_canary` returns under :data:`CANARY_KEY` in the artefact's
metadata, beside the contract.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.metadata import metadata_text
from sa_runtime.errors import ContractError, InputError

CANARY_KEY = "sa_deploy.canary"
MAX_CROPS = 8
"""More would only make the file larger: the worst of eight real crops shows a runtime's fault."""


class Canary(NamedTuple):
    """Crops (N, H, W, 3) uint8 BGR and the artefact's own main embedding of them (N, D) float32."""

    images: Images
    vectors: Embeddings


def make_canary(images: Images, vectors: Embeddings) -> str:
    """Crops and vectors as text: base64 of a compressed NumPy archive.

    Args:
        images: (N, H, W, 3) uint8 BGR real crops at the artefact's size, N from 1 to 8.
        vectors: (N, D) float32, what the artefact gives at its own precision.

    Raises:
        InputError: other shapes or types.

    >>> text = make_canary(np.zeros((1, 4, 2, 3), np.uint8), np.ones((1, 5), np.float32))
    >>> read_canary(text).vectors.shape
    (1, 5)
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not 1 <= len(images) <= MAX_CROPS:
        raise InputError(
            f"canary images {images.dtype} {images.shape}: expected uint8 (N, H, W, 3) with N from "
            f"1 to {MAX_CROPS}"
        )
    if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(images):
        raise InputError(
            f"canary vectors {vectors.dtype} {vectors.shape}: expected float32 ({len(images)}, D)"
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, vectors=vectors)
    return base64.b64encode(buffer.getvalue()).decode()


def read_canary(text: str, *, source: str = "canary") -> Canary:
    """Inverse of :func:`make_canary`.

    Args:
        text: what it returned.
        source: file it came from, for the message.

    Raises:
        ContractError: something else.
    """
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True))) as archive:
            return Canary(archive["images"], archive["vectors"])
    except (
        binascii.Error, EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error
    ) as exc:  # fmt: skip
        raise ContractError(
            f"{source}: its canary crops cannot be read ({exc}); export the model again"
        ) from exc


def canary_of(path: Path) -> Canary | None:
    """The canary crops of an artefact, ``None`` where it carries none.

    Raises:
        InputError: not an artefact of this project.
        ContractError: crops that cannot be read.
    """
    text = metadata_text(path, CANARY_KEY)
    return None if text is None else read_canary(text, source=str(path))


def least_cosine(vectors: Embeddings, reference: Embeddings) -> float:
    """Cosine of the worst row; both (N, D), rows of unit length.

    >>> least_cosine(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    1.0
    """
    products = vectors.astype(np.float64) * reference.astype(np.float64)
    return float(products.sum(axis=1).min())
