from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_SCHEMA

DIM = 16
Make = Callable[..., StoredEmbeddings]


def contract_of(space: str = "space", dim: int = DIM) -> Contract:
    return Contract(
        input=InputSpec(height=8, width=4),
        output=OutputSpec(dim=dim),
        weights_sha256="0",
        space=space,
    )


def people(
    rows: int = 40,
    *,
    source: str = "c1.mp4",
    camera: str | None = "c1",
    tracks: int = 8,
    seed: int = 0,
    space: str = "space",
    vectors: Any = None,
) -> StoredEmbeddings:
    """Rows of a video: track ``row % tracks`` in every frame, one frame each 0.1 s."""
    rng = np.random.default_rng(seed)
    if vectors is None:
        vectors = rng.standard_normal((rows, DIM))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    frame = np.arange(rows) // tracks + 1
    table = pa.table(
        {
            "source": [source] * rows,
            "frame": frame,
            "timestamp_s": (frame - 1) * 0.1,
            "track_id": np.arange(rows) % tracks,
            "left": np.full(rows, 1.0),
            "top": np.full(rows, 2.0),
            "width": np.full(rows, 30.0),
            "height": np.full(rows, 60.0),
            "confidence": pa.nulls(rows),
            "camera": pa.array([camera] * rows, pa.string()),
            "crop": pa.nulls(rows, pa.string()),
        }
    )
    for field in ROW_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(rows, field.type))
    table = table.select(ROW_SCHEMA.names).cast(ROW_SCHEMA)
    return StoredEmbeddings(
        rows=table, vectors=np.asarray(vectors, np.float32), contract=contract_of(space)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gallery"
