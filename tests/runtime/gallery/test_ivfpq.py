"""The method ``ivfpq``: the recall shown is the one there is, and distances are exact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import InputError, MissingPackageError
from sa_runtime.gallery import ivfpq
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where
from tests.runtime.gallery.conftest import contract_of, people

pytest.importorskip("faiss", reason="faiss is not installed: no codes can be made here")
ROWS = 12_000


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("ivfpq") / "gallery"
    made = Gallery.create(folder, contract_of(), method="ivfpq")
    made.add([people(ROWS, tracks=100)])
    return Gallery(folder)


def test_the_recall_shown_is_that_of_queries_which_are_not_there(gallery: Gallery) -> None:
    """Measured anew, with vectors that the gallery does not hold, by comparing every pair."""
    vectors = people(ROWS, tracks=100).vectors
    strangers = people(2000, seed=9).vectors
    likeness = strangers.astype(float) @ vectors.astype(float).T
    expected = np.argpartition(-likeness, 10, axis=1)[:, :10]
    found = gallery.search(strangers, 10).index
    hits = sum(len({*mine} & {*others}) for mine, others in zip(found, expected, strict=True))
    assert gallery.recall is not None
    assert hits / expected.size == pytest.approx(gallery.recall, abs=0.02)
    assert 0.5 < gallery.recall < 1


def test_distances_are_exact_and_what_is_filtered_is_not_missed(gallery: Gallery) -> None:
    query = people(40, seed=5)
    one, two = gallery.search(query, 10), gallery.search(query, 10, exact=True)
    same = one.index == two.index
    assert one.distance[same].tolist() == two.distance[same].tolist()
    assert (np.diff(one.distance, axis=1) >= 0).all()
    assert (one.distance >= two.distance).all()
    where = Where(track=7)
    found = [gallery.search(query, 30, where=where, exact=exact).index for exact in (False, True)]
    assert found[0].tolist() == found[1].tolist()


def test_removing_makes_the_lists_anew(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", contract_of(), method="ivfpq")
    made.add([people(ROWS, tracks=100)])
    own = people(ROWS, tracks=100).vectors
    made.remove(Where(track=3))
    # Codes are learnt and written by the rows that are left: the file is that of a gallery which
    # never had the others.
    never = Gallery.create(tmp_path / "never", contract_of(), method="ivfpq")
    rest = people(ROWS, tracks=100)
    left = np.flatnonzero(np.arange(ROWS) % 100 != 3)
    rows, vectors = rest.rows.take(left), rest.vectors[left]
    never.add([dataclasses.replace(rest, rows=rows, vectors=vectors)])
    codes = [next(one.path.rglob(ivfpq.FILE)).read_bytes() for one in (made, never)]
    assert codes[0] == codes[1]
    found = made.search(own[3:4], 5)
    assert not any(row["track_id"] == 3 for row in found.rows(0))
    made.remove(Where(start=5.0))
    assert (len(made), made.recall) == (4950, None)
    assert not list((tmp_path / "g").rglob(ivfpq.FILE))


def test_rows_that_are_all_alike_are_found_however_few_the_lists_give(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", contract_of(), method="ivfpq")
    alike = np.repeat(people(1).vectors, ROWS, axis=0)
    made.add([people(ROWS, tracks=100, vectors=alike)])
    query = people(3, seed=4).vectors
    by_track = made.search(query, 20, by="track")
    assert by_track.index.tolist() == [list(range(20))] * 3
    assert (by_track.distance == made.search(query, 20, by="track", exact=True).distance).all()


def test_lists_that_were_damaged_are_told(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", contract_of(), method="ivfpq")
    made.add([people(ROWS, tracks=100)])
    file = next(made.path.rglob(ivfpq.FILE))
    file.write_bytes(bytes(file.stat().st_size))
    opened = Gallery(made.path)
    with pytest.raises(InputError, match=r"lists\.faiss: cannot be read .* `exact=True` does"):
        opened.search(people(2), 5)
    assert opened.search(people(2), 5, exact=True).index[:, 0].tolist() == [0, 1]


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"sa-deploy\[faiss\]"):
        Gallery.create(tmp_path / "g", contract_of(), method="ivfpq")
