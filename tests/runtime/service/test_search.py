"""``POST /search``: the rows of a gallery, as searching it gives them; changes are seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

from sa_deploy import Embedder, Gallery, Where, embed, read_embeddings
from sa_runtime.errors import ContractError, MissingFileError
from sa_runtime.service.search import Searcher
from tests.runtime.service.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name in range(12):
        block = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        data = cv2.imencode(".png", cv2.resize(block, (32, 64)))[1].tobytes()
        (folder / f"{name:02d}.png").write_bytes(data)
    return folder


@pytest.fixture
def gallery(people: Path, tiny_model: TinyModel, tmp_path: Path) -> Gallery:
    stored = tmp_path / "people.parquet"
    embed(people, tiny_model.path, stored, runtime="onnxruntime")
    made = Gallery.create(tmp_path / "gallery", tiny_model.contract)
    made.add([read_embeddings(stored)])
    return made


def test_people_are_found_as_in_the_gallery_itself(
    gallery: Gallery, people: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_runtime.service.search.LOOK_S", 0.0)
    asked = people / "03.png"
    with Embedder(tiny_model.path, "onnxruntime") as embedder:
        expected = gallery.search(embedder.embed_paths([asked]), 3).rows(0)
    with serving(tiny_model.path, gallery=gallery.path) as running:

        def search(**words: Any) -> httpx.Response:
            return httpx.post(f"{running.url}/search", params=words, content=asked.read_bytes())

        answer = search(k=3)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["results"]
        assert answer.json()["space"] == tiny_model.contract.space
        assert [row["source"] for row in found] == [row["source"] for row in expected]
        assert found[0]["source"] == str(asked)
        np.testing.assert_allclose(
            [row["distance"] for row in found], [row["distance"] for row in expected], atol=1e-5
        )
        two = [str(people / "03.png"), str(people / "05.png")]
        (found,) = search(source=two).json()["results"]
        assert sorted(row["source"] for row in found) == two
        gallery.remove(Where(source=(str(asked),)))
        (after,) = search(k=3).json()["results"]
        assert after[0]["source"] == expected[1]["source"]
        for words, status, said in (
            ({"k": 0}, 400, "k: expected a number from 1"),
            ({"k": 10**9}, 400, "k: expected a number from 1"),
            ({"by": "x"}, 422, "by='x'"),
            ({"source": "nobody"}, 422, "nobody"),
            ({"camra": "c1"}, 400, "?camra=: expected one of"),
            ({"k": [1, 2]}, 400, "k: expected once"),
        ):
            refused = search(**words)
            assert (refused.status_code, said in refused.json()["error"]) == (status, True)
        aside = gallery.path.rename(gallery.path.with_name("aside"))
        for _ in range(2):
            gone = search()
            assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
            assert str(gallery.path) not in gone.text
        aside.rename(gallery.path)
        assert search().status_code == 200


def test_a_folder_that_is_no_gallery_is_told_at_the_start(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere: no gallery, .* `sa-deploy index"):
        Searcher(tmp_path / "nowhere", tiny_model.contract)


def test_a_gallery_of_another_space_is_refused(
    gallery: Gallery, make_tiny_model: Callable[..., TinyModel]
) -> None:
    with pytest.raises(ContractError, match="they do not compare"):
        Searcher(gallery.path, make_tiny_model(seed=3).contract)


def test_without_a_gallery_there_is_no_search(tiny_model: TinyModel) -> None:
    with serving(tiny_model.path) as running:
        assert httpx.post(f"{running.url}/search", content=b"x").status_code == 404
