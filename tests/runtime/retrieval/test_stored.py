from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.datasets.base import ReidDataset
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_SCHEMA
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.evaluation import evaluate
from sa_runtime.retrieval.stored import StoredImages


def stored(sources: Sequence[str], *, frames: bool = False) -> StoredEmbeddings:
    """Row i holds the vector (i, 0)."""
    rows = [
        Row(source, 1 if frames else None, None, None, 0, 0, 4, 8, None, None) for source in sources
    ]
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), ROW_SCHEMA, strict=True)
    ]
    vectors = np.zeros((len(rows), 2), np.float32)
    vectors[:, 0] = np.arange(len(rows))
    contract = Contract(
        input=InputSpec(height=8, width=4), output=OutputSpec(dim=2), weights_sha256="0", space="s"
    )
    return StoredEmbeddings(
        rows=pa.Table.from_arrays(columns, schema=ROW_SCHEMA), vectors=vectors, contract=contract
    )


ROOT = Path("/data/market")


def rows_of(sources: Sequence[str], wanted: Sequence[str]) -> list[float]:
    images = StoredImages(stored(sources), ROOT, name="people.parquet")
    vectors = images([ROOT / name for name in wanted])
    return [float(value) for value in vectors[:, 0]]


def test_files_are_found_by_their_path_or_its_end() -> None:
    sources = ["/elsewhere/query/a.jpg", "/data/market/gallery/a.jpg", "query/b.jpg"]
    assert rows_of(sources, ["gallery/a.jpg", "query/a.jpg", "query/b.jpg"]) == [1, 0, 2]


def test_one_image_embedded_twice_is_one_image() -> None:
    assert rows_of(["/e/query/a.jpg", "/e/query/a.jpg"], ["query/a.jpg"]) == [0]


def test_what_is_missing_or_not_clear_is_named() -> None:
    with pytest.raises(InputError, match=r"people\.parquet: no row of the image query/b\.jpg"):
        rows_of(["query/a.jpg"], ["query/b.jpg"])
    with pytest.raises(InputError, match=r"rows 0 and 1 both end in query/a\.jpg"):
        rows_of(["/one/query/a.jpg", "/two/query/a.jpg"], ["query/a.jpg"])
    of_a_video = StoredImages(stored(["query/a.jpg"], frames=True), ROOT, name="people.parquet")
    with pytest.raises(InputError, match="no row of the image"):
        of_a_video([ROOT / "query/a.jpg"])


def test_stored_embeddings_give_the_figures_of_their_model(
    tiny_onnx_model: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "people"
    folders = [synthetic_root / "query", synthetic_root / "bounding_box_test"]
    images: ReidDataset = load_dataset("synthetic", synthetic_root)
    with Embedder(tiny_onnx_model, "onnxruntime") as embedder:
        embed(folders, embedder, out)
        computed = evaluate(embedder, images)
    report = evaluate(out, images)
    assert report.figures() == pytest.approx(computed.figures(), abs=1e-6)
    assert (report.runtime, report.model, report.precision) == ("stored", str(out), "fp32")
    assert report.to_dict()["images_per_second"] is None
