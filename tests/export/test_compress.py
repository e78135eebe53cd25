from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sa_export.compress import compress_model
from sa_runtime.artefact.canary import canary_of
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.embedder import Embedder
from sa_runtime.errors import ContractError, InputError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.retrieval.compression import as_stored, fit_projection, size_curve
from sa_runtime.retrieval.evaluation import evaluate
from tests.cli.invoke import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(scope="module")
def fitted(
    tiny_onnx_model: Path, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StoredEmbeddings]:
    out = tmp_path_factory.mktemp("compress") / "train.parquet"
    embed(synthetic_root / "bounding_box_train", tiny_onnx_model, out, runtime="onnxruntime")
    return out, read_embeddings(out)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_artefact_gives_the_projected_vectors(
    tiny_onnx_model: Path,
    fitted: tuple[Path, StoredEmbeddings],
    synthetic_root: Path,
    tmp_path: Path,
    runtime: str,
) -> None:
    found = compress_model(tiny_onnx_model, fitted[1], tmp_path / "small.onnx", 24)
    paths: Sequence[Path] = sorted((synthetic_root / "query").glob("*.jpg"))[:9]
    with (
        Embedder(tiny_onnx_model, "onnxruntime") as whole,
        Embedder(found.path, runtime) as short,
    ):
        assert short.dim == 24
        expected = found.projection(whole.embed_paths(paths))
        vectors = short.embed_paths(paths)
    assert np.allclose(vectors, expected, atol=2e-4)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_short_vectors_are_a_space_of_their_own(
    tiny_onnx_model: Path, fitted: tuple[Path, StoredEmbeddings], tmp_path: Path
) -> None:
    before = read_contract(tiny_onnx_model)
    found = compress_model(tiny_onnx_model, fitted[1], tmp_path / "a.onnx", 24)
    other = compress_model(tiny_onnx_model, fitted[1], tmp_path / "b.onnx", 24, whitening=0)
    again = compress_model(tiny_onnx_model, fitted[1], tmp_path / "c.onnx", 24)
    spaces = {before.space, found.contract.space, other.contract.space}
    assert len(spaces) == 3
    assert again.contract.space == found.contract.space
    contract = read_contract(found.path)
    assert contract == found.contract
    assert (contract.output.embedding, contract.output.dim) == ("parts-pca24", 24)
    canary = canary_of(found.path)
    if canary is not None:
        assert canary.vectors.shape[1] == 24
    with pytest.raises(ContractError, match="of space"):
        compress_model(found.path, fitted[1], tmp_path / "d.onnx", 8)


def test_what_cannot_be_compressed_is_refused(
    tiny_onnx_model: Path, fitted: tuple[Path, StoredEmbeddings], tmp_path: Path
) -> None:
    out = tmp_path / "small.onnx"
    with pytest.raises(InputError, match=r"dim=9999: expected 1 to 1536"):
        compress_model(tiny_onnx_model, fitted[1], out, 9999)
    with pytest.raises(InputError, match="vectors to fit 1000 components on: expected more"):
        compress_model(tiny_onnx_model, fitted[1], out, 1000)
    with pytest.raises(InputError, match=r"small\.xml: only ONNX artefacts are compressed"):
        compress_model(tiny_onnx_model, fitted[1], tmp_path / "small.xml", 8)
    with pytest.raises(InputError, match="it is read; write to another file"):
        compress_model(tiny_onnx_model, fitted[1], tiny_onnx_model, 8)
    assert not list(tmp_path.iterdir())


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    for shape in ((200, 12), (20, 60)):
        vectors = rng.normal(size=shape) * np.linspace(3, 0.5, shape[1])
        found = fit_projection(vectors, 5, whitening=1)
        centred = vectors - vectors.mean(axis=0)
        _, values, rows = np.linalg.svd(centred, full_matrices=False)
        cosine = np.abs((found.matrix / np.linalg.norm(found.matrix, axis=0)).T @ rows[:5].T)
        assert np.allclose(cosine, np.eye(5), atol=1e-4)
        assert found.kept == pytest.approx((values[:5] ** 2).sum() / (values**2).sum())
        moved = centred @ found.matrix
        assert np.allclose(moved.std(axis=0), moved.std(axis=0)[0], rtol=1e-4)


def test_fewer_bytes_cost_little_and_are_counted(
    tiny_onnx_model: Path, fitted: tuple[Path, StoredEmbeddings], synthetic_root: Path
) -> None:
    images = load_dataset("synthetic", synthetic_root)
    report = evaluate(tiny_onnx_model, images, runtime="onnxruntime")
    points = size_curve(fitted[1].vectors, report.query, report.gallery, images, [8, 32])
    assert [(point.dim, point.size_bytes) for point in points] == [
        *((1536, 6144), (1536, 3072), (1536, 1536)),
        *((32, 128), (32, 64), (32, 32), (8, 32), (8, 16), (8, 8)),
    ]
    assert points[0].mAP == pytest.approx(report.mAP)
    assert points[5].mAP == pytest.approx(points[3].mAP, abs=0.02)
    vectors = np.linspace(-1, 1, 255, dtype=np.float32)[None]
    assert np.abs(as_stored(vectors, "int8") - vectors).max() <= 0.5 / 127 + 1e-6


def test_the_command_prints_the_curve(
    tiny_onnx_model: Path,
    fitted: tuple[Path, StoredEmbeddings],
    synthetic_root: Path,
    tmp_path: Path,
) -> None:
    done = invoke(
        *("compress", tiny_onnx_model, "--fit", fitted[0], "--dim", 16),
        *("--out", tmp_path / "small.onnx", "-d", "synthetic", "--data-dir", synthetic_root),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["dim_before"], found["dim"]) == (1536, 16)
    assert {1536, 16, 32} <= {point["dim"] for point in found["curve"]}
    again = evaluate(tmp_path / "small.onnx", "synthetic", synthetic_root, runtime="onnxruntime")
    (same,) = (p for p in found["curve"] if p["dim"] == 16 and p["stored"] == "float32")
    assert again.mAP == pytest.approx(same["mAP"], abs=0.005)
