"""Crops and files by the request that they go in, and their vectors together again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images, check_image
from sa_runtime.artefact.contract import Contract

if TYPE_CHECKING:
    from sa_runtime.service.asking import ServerInfo

_FILE_ROOM = 1024
"""Bytes of a body for the name of each file."""


def resized(images: Sequence[Image] | Images, contract: Contract) -> Images:
    """Crops of any sizes -> (N, H, W, 3) uint8 at a model's.

    Raises:
        InputError: one of another type or shape.
    """
    spec = contract.input
    out = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    for index, image in enumerate(images):
        check_image(image, f"crop {index}")
        crops.resize(image, spec.height, spec.width, out[index])
    return out


def parts_of(paths: Sequence[Path], info: ServerInfo) -> list[list[Path]]:
    """Files by the request that they go in, which takes so many and so many bytes."""
    parts: list[list[Path]] = []
    held = 0
    for path in paths:
        size = (path.stat().st_size if path.is_file() else 0) + _FILE_ROOM
        if not parts or len(parts[-1]) == info.max_images or held + size > info.max_bytes:
            parts.append([])
            held = 0
        parts[-1].append(path)
        held += size
    return parts


def joined(parts: Sequence[Embeddings], dim: int) -> Embeddings:
    """Parts one below the other; (0, dim) where there are none."""
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)
