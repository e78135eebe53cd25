from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.retrieval.evaluation import embed_samples, evaluate, evaluate_embedder
from sa_runtime.retrieval.rerank import Reranking


def sample(person: int, camera: int, shot: int = 0) -> Sample:
    return Sample(Path(f"{person}_{camera}_{shot}.png"), person, camera)


def dataset(query: Sequence[Sample], gallery: Sequence[Sample]) -> ReidDataset:
    return ReidDataset(
        name="paper", root=Path("/paper"), train=(), query=tuple(query), gallery=tuple(gallery)
    )


def one_hot(paths: Sequence[Path]) -> NDArray[np.float32]:
    """A perfect model: the person in the file's name, and a little of the shot."""
    vectors = np.zeros((len(paths), 8), np.float32)
    for row, path in enumerate(paths):
        person, _, shot = map(int, path.stem.split("_"))
        vectors[row, person + 1] = 1
        vectors[row, 0] = 0.01 * shot
    return vectors


WORLD = dataset(
    [sample(1, 0), sample(2, 0), sample(3, 0)],
    [sample(1, 0, 1), sample(1, 1), sample(2, 1), sample(0, 1), sample(-1, 1)],
)


def test_a_perfect_model_scores_full_marks() -> None:
    seen: list[int] = []
    report = evaluate_embedder(one_hot, WORLD, on_progress=seen.append)
    assert (report.mAP, report.mINP, report.rank(1), report.rank(5)) == (1.0, 1.0, 1.0, 1.0)
    assert sum(seen) == 8
    figures = report.to_dict()
    assert {key: figures[key] for key in ("dataset", "dim", "reranked", "mAP", "mINP")} == {
        "dataset": "paper",
        "dim": 8,
        "reranked": False,
        "mAP": 1.0,
        "mINP": 1.0,
    }
    assert figures["cmc"] == {"market1501": {"rank1": 1.0, "rank5": 1.0, "rank10": 1.0}}
    assert (figures["queries"], figures["queries_counted"], figures["queries_skipped"]) == (3, 2, 1)
    assert (figures["gallery"], figures["junk"]) == (5, 1)
    assert figures["images_per_second"] == pytest.approx(8 / figures["embed_seconds"])


def test_a_wrong_model_does_not() -> None:
    def blind(paths: Sequence[Path]) -> NDArray[np.float32]:
        return -one_hot(paths) if len(paths) == 3 else one_hot(paths)

    assert evaluate_embedder(blind, WORLD).result.mAP < 0.7


def test_reranking_is_reported() -> None:
    report = evaluate_embedder(one_hot, WORLD, rerank=Reranking(k1=2, k2=1))
    assert report.to_dict()["reranked"] is True
    assert report.result.mAP == 1.0


def test_images_are_embedded_in_order_and_in_parts() -> None:
    sizes: list[int] = []

    def embed(paths: Sequence[Path]) -> NDArray[np.float16]:
        sizes.append(len(paths))
        return np.array([[float(path.stem.split("_")[2])] for path in paths], np.float16)

    samples = [sample(1, 0, shot) for shot in range(1100)]
    vectors = embed_samples(embed, samples)
    assert vectors.dtype == np.float16
    assert vectors[:, 0].tolist() == list(range(1100))
    assert len(sizes) > 1


def test_messages_name_what_is_missing() -> None:
    with pytest.raises(InputError, match=r"paper in /paper has no gallery images to evaluate on"):
        evaluate_embedder(one_hot, dataset([sample(1, 0)], []))

    def short(paths: Sequence[Path]) -> Any:
        return np.ones((1, 4))

    with pytest.raises(InputError, match=r"3 images were embedded as \(1, 4\): expected one row"):
        evaluate_embedder(short, WORLD)
    with pytest.raises(InputError, match="no images to embed"):
        embed_samples(one_hot, [])


def test_a_model_is_evaluated_by_its_path_as_by_an_open_embedder(
    tiny_onnx_model: Path, synthetic_root: Path
) -> None:
    seen: list[int] = []
    report = evaluate(
        tiny_onnx_model,
        "synthetic",
        synthetic_root,
        runtime="onnxruntime",
        conventions=("cuhk03", "allshots"),
        on_progress=seen.append,
    )
    images = load_dataset("synthetic", synthetic_root)
    with Embedder(tiny_onnx_model, "onnxruntime") as embedder:
        again = evaluate(embedder, images)
        embedder.embed([])  # still open
    assert np.array_equal(report.query, again.query)
    assert report.mAP == again.mAP
    assert report.rank(1, "allshots") < again.rank(1)
    assert sum(seen) == len(images.query) + len(images.gallery)


def test_nothing_is_opened_for_arguments_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="data_dir: expected the folder of the data set 'market'"):
        evaluate("none.onnx", "market")
    with pytest.raises(InputError, match="CMC convention 'first': unknown"):
        evaluate("none.onnx", WORLD, conventions=["first"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"none\.onnx"):
        evaluate("none.onnx", WORLD)
