from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sa_runtime.errors import InputError, MissingPackageError
from sa_runtime.gallery import graph
from sa_runtime.gallery.approximate import held_out
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import RowLabels, Where, gallery_rows, track_numbers
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


def test_the_recall_shown_is_that_of_queries_which_are_not_there(gallery: Gallery) -> None:
    """Measured anew, with vectors that the gallery does not hold, by comparing every pair."""
    vectors = np.concatenate(
        [people(ROWS, tracks=50).vectors, people(300, source="small.mp4", seed=1).vectors]
    )
    strangers = people(2000, seed=9).vectors
    likeness = strangers.astype(float) @ vectors.astype(float).T
    expected = np.argpartition(-likeness, 10, axis=1)[:, :10]
    found = gallery.search(strangers, 10).index
    hits = sum(len({*mine} & {*others}) for mine, others in zip(found, expected, strict=True))
    assert gallery.recall is not None
    assert hits / expected.size == pytest.approx(gallery.recall, abs=0.003)
    assert 0.9 < gallery.recall < 1


def test_who_waits_for_a_graph_is_told_how_far_it_is(gallery: Gallery, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    shutil.copytree(gallery.path, tmp_path / "copy")
    copy = Gallery(tmp_path / "copy", on_index=lambda done, total: told.append((done, total)))
    copy.add([people(20_000, source="large.mp4", seed=2)])
    assert told == [(0, 20_000), (16_384, 20_000)]
    copy.remove(Where(source=("small.mp4",)))
    assert len(told) == 2  # that segment has no graph
    copy.remove(Where(source=("c1.mp4",), track=3))
    assert told[2:] == [(0, ROWS - ROWS // 50)]


def test_distances_are_those_of_the_exact_search(gallery: Gallery) -> None:
    query = people(60, seed=5)
    one, two = gallery.search(query, 10), gallery.search(query, 10, exact=True)
    assert np.mean(one.index == two.index) > 0.8
    same = one.index == two.index
    assert one.distance[same].tolist() == two.distance[same].tolist()
    assert (np.diff(one.distance, axis=1) >= 0).all()
    assert (one.distance >= two.distance).all()


def test_threads_that_search_at_once_find_what_one_finds(gallery: Gallery) -> None:
    query = people(400, seed=8).vectors
    alone = gallery.search(query, 10)
    with ThreadPoolExecutor(8) as pool:
        parts = [query[start : start + 5] for start in range(0, 400, 5)]
        found = list(pool.map(lambda part: gallery.search(part, 10), parts))
    assert np.concatenate([one.index for one in found]).tolist() == alone.index.tolist()
    assert np.concatenate([one.distance for one in found]).tolist() == alone.distance.tolist()


def test_a_graph_that_was_damaged_is_told(gallery: Gallery, tmp_path: Path) -> None:
    shutil.copytree(gallery.path, tmp_path / "copy")
    file = next((tmp_path / "copy").rglob(graph.FILE))
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(InputError, match=r"graph\.usearch: cannot be read .* `exact=True` does"):
        Gallery(tmp_path / "copy").search(people(2), 5)


def test_what_is_filtered_or_asked_for_in_masses_is_exact(gallery: Gallery) -> None:
    query = people(20, seed=6)
    where = Where(track=7)
    one = gallery.search(query, 30, where=where)
    assert one.index.tolist() == gallery.search(query, 30, where=where, exact=True).index.tolist()
    many = gallery.search(query, 1500)
    assert many.index.tolist() == gallery.search(query, 1500, exact=True).index.tolist()
    assert gallery.search(query, 40, by="track").index.shape == (20, 40)


def in_two_bytes(vector: NDArray[np.float32]) -> list[bytes]:
    """As a graph may hold it: float16, or bfloat16 rounded or cut."""
    bits = vector.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    cut = bits >> 16
    return [
        vector.astype(np.float16).tobytes(),
        *(some.astype(np.uint16).tobytes() for some in (rounded, cut)),
    ]


def test_removing_makes_a_new_graph(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", contract_of(), method="hnsw")
    made.add([people(1500, tracks=10)])
    own = people(1500, tracks=10).vectors
    before = next((tmp_path / "g").rglob(graph.FILE)).read_bytes()
    assert all(any(form in before for form in in_two_bytes(vector)) for vector in own)
    made.remove(Where(track=3))
    assert made.recall is not None
    after = b"".join(path.read_bytes() for path in (tmp_path / "g").rglob("*") if path.is_file())
    for vector in own[3::10]:
        assert vector.tobytes() not in after
        assert not any(form in after for form in in_two_bytes(vector))
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


def test_whole_tracks_are_held_out_to_measure_recall() -> None:
    stored = people(4000, tracks=40)
    rows = gallery_rows(stored.rows, RowLabels(), datetime.now(UTC))
    held = held_out(track_numbers(rows), np.random.default_rng(0))
    tracks = rows["track_id"].to_numpy()
    assert len(held) == 400
    assert len(np.unique(tracks[held])) == 4
    assert not {*tracks[held]} & {*np.delete(tracks, held)}
    long = people(4000, tracks=2)
    held = held_out(
        track_numbers(gallery_rows(long.rows, RowLabels(), datetime.now(UTC))),
        np.random.default_rng(0),
    )
    assert len(held) == 400  # rows of tracks that stay


def test_rows_without_a_track_stand_for_themselves() -> None:
    stored = people(6, tracks=2)
    two = pa.concat_tables([stored.rows, people(2, source="c2.mp4", tracks=1).rows])
    some = pa.array([0, 1, 0, None, None, 1, 0, 0], pa.int32())
    place = two.column_names.index("track_id")
    two = two.set_column(place, "track_id", some.cast(two.schema.field("track_id").type))
    number = track_numbers(gallery_rows(two, RowLabels(), datetime.now(UTC))).tolist()
    assert number[0] == number[2]
    assert number[1] == number[5]
    assert number[6] == number[7]
    assert len({*number}) == 5
