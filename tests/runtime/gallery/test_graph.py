from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import InputError, MissingPackageError
from sa_runtime.gallery import graph
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where
from sa_runtime.retrieval.vectors import Floats
from tests.runtime.gallery.conftest import DIM, contract_of, people

pytest.importorskip("usearch", reason="usearch is not installed: no graph can be made here")

ROWS = 6000


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("graph") / "gallery"
    made = Gallery.create(folder, contract_of(), method="hnsw")
    made.add([people(ROWS, tracks=50)])
    made.add([people(300, source="small.mp4", seed=1)])
    return Gallery(folder)


def every_distance(query: Floats, gallery: Floats) -> Floats:
    distance: Floats = ((query[:, None].astype(float) - gallery[None]) ** 2).sum(axis=2)
    return distance


def test_the_recall_shown_is_the_recall_there_is(gallery: Gallery) -> None:
    """Measured anew, on other rows than those it was measured with, by comparing every pair."""
    vectors = people(ROWS, tracks=50).vectors
    rows = np.random.default_rng(9).permutation(ROWS)[:150]
    distance = every_distance(vectors[rows], vectors)
    distance[np.arange(len(rows)), rows] = np.inf
    expected = np.argsort(distance, axis=1)[:, :10]
    found = gallery.search(vectors[rows], 11, where=None).index
    hits = sum(len(set(mine) & set(others)) for mine, others in zip(found, expected, strict=True))
    assert gallery.recall is not None
    # The small segment's rows are also found, and take places: count without them.
    places = sum(int((row < ROWS).sum()) - 1 for row in found)
    assert hits / min(expected.size, places) == pytest.approx(gallery.recall, abs=0.03)
    assert gallery.recall > 0.9


def test_distances_are_those_of_the_exact_search(gallery: Gallery) -> None:
    query = people(60, seed=5)
    one, two = gallery.search(query, 10), gallery.search(query, 10, exact=True)
    assert np.mean(one.index == two.index) > 0.8
    same = one.index == two.index
    assert one.distance[same].tolist() == two.distance[same].tolist()
    assert (np.diff(one.distance, axis=1) >= 0).all()
    assert (one.distance >= two.distance).all()


def test_what_is_filtered_or_asked_for_in_masses_is_exact(gallery: Gallery) -> None:
    query = people(20, seed=6)
    where = Where(track=7)
    one = gallery.search(query, 30, where=where)
    assert one.index.tolist() == gallery.search(query, 30, where=where, exact=True).index.tolist()
    many = gallery.search(query, 1500)
    assert many.index.tolist() == gallery.search(query, 1500, exact=True).index.tolist()
    assert gallery.search(query, 40, by="track").index.shape == (20, 40)


def test_removing_makes_a_new_graph(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", contract_of(), method="hnsw")
    made.add([people(1500, tracks=10)])
    own = people(1500, tracks=10).vectors
    made.remove(Where(track=3))
    assert made.recall is not None
    found = made.search(own[3:4], 5)
    assert not any(row["track_id"] == 3 for row in found.rows(0))
    assert found.distance[0, 0] > 0
    made.remove(Where(start=10.0))
    assert len(made) == 900
    assert Gallery(tmp_path / "g").recall is None
    assert not list((tmp_path / "g").rglob(graph.FILE))


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(MissingPackageError, match=r"sa-deploy\[gallery\]"):
        Gallery.create(tmp_path / "g", contract_of(dim=DIM), method="hnsw")
    with pytest.raises(InputError, match="expected one of exact, hnsw, ivfpq"):
        Gallery.create(tmp_path / "g", contract_of(), method="ivf")  # type: ignore[arg-type]
