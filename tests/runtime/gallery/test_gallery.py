from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sa_runtime.errors import ContractError, InputError, MissingFileError
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.manifest import MANIFEST
from sa_runtime.gallery.rows import RowLabels, Where
from sa_runtime.outputs.base import StoredType
from sa_runtime.retrieval.search import top_k
from tests.file_limits import files_up_to
from tests.runtime.gallery.conftest import DIM, contract_of, people

MORNING = datetime(2026, 5, 1, 8, tzinfo=UTC)


def files_of(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("segments/**/*") if path.is_file()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_search_finds_what_top_k_finds(folder: Path, dtype: StoredType) -> None:
    one, two = people(300), people(200, source="c2.mp4", seed=1)
    gallery = Gallery.create(folder, contract_of(), dtype=dtype)
    assert gallery.add([one, two]) == 500
    query = people(20, seed=2)
    found = Gallery(folder).search(query, 7)
    stored = np.concatenate([one.vectors, two.vectors]).astype(dtype)
    expected = top_k(query.vectors, stored, 7)
    assert found.index.tolist() == expected.index.tolist()
    assert found.distance == pytest.approx(expected.distance, abs=1e-6)
    first = found.rows(0)[0]
    row = int(found.index[0, 0])
    assert first["source"] == ("c1.mp4" if row < 300 else "c2.mp4")
    assert first["track_id"] == row % 8 if row < 300 else (row - 300) % 8
    assert (first["rank"], first["camera"], first["person"]) == (1, "c1", None)


def test_rows_that_are_meant_are_searched_and_no_others(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(80)], labels=RowLabels(start=MORNING, person="Ada"))
    gallery.add([people(80, source="c2.mp4", camera="c2", seed=1)])
    query = people(3, seed=2)
    cases: list[tuple[Where, int, Callable[[dict[str, Any]], bool]]] = [
        (Where(camera=("c2",)), 80, lambda row: row["camera"] == "c2"),
        (Where(source=("c1.mp4",), track=3), 10, lambda row: row["track_id"] == 3),
        (Where(person=("Ada",)), 80, lambda row: row["person"] == "Ada"),
        (Where(start=0.2, end=0.4), 32, lambda row: 0.2 <= row["timestamp_s"] < 0.4),
        (
            Where(start=MORNING + timedelta(seconds=0.5)),
            40,
            lambda row: row["time"] >= MORNING + timedelta(seconds=0.5),
        ),
    ]
    for where, count, check in cases:
        assert gallery.count(where) == count
        found = gallery.search(query, 200, where=where)
        assert found.index.shape == (3, count)
        assert all(check(row) for row in found.rows(0))
    left_out = gallery.search(query, 200, leave_out=Where(source=("c1.mp4",), track=3))
    assert left_out.index.shape == (3, 150)
    with pytest.raises(InputError, match=r"camera='c9': no row.*there are c1, c2"):
        gallery.search(query, where=Where(camera=("c9",)))


def test_a_track_takes_one_place(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(400), people(80, source="c2.mp4", seed=1)])
    query = people(5, seed=2)
    found = gallery.search(query, 12, by="track")
    everything = gallery.search(query, 480)
    for index in range(5):
        tracks = [(row["source"], row["track_id"]) for row in found.rows(index)]
        order = [(row["source"], row["track_id"]) for row in everything.rows(index)]
        assert tracks == list(dict.fromkeys(order))[:12]
    assert gallery.search(query, 99, by="track").index.shape == (5, 16)


def test_spaces_refuse_each_other(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of("one"))
    with pytest.raises(ContractError, match="two"):
        gallery.add([people(space="two")])
    with pytest.raises(ContractError, match="two"):
        gallery.search(people(space="two"))
    with pytest.raises(InputError, match=r"3 dimensions.*16"):
        gallery.search(np.ones((1, 3), np.float32))
    assert (len(Gallery(folder)), files_of(folder)) == (0, set())


def test_an_empty_gallery_one_image_and_a_thousand_equal_ones(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    found = gallery.search(people(2), 5)
    assert (found.index.shape, found.rows(0)) == ((2, 0), [])
    assert gallery.search(people(2), 5, by="track").index.shape == (2, 0)
    gallery.add([people(1)])
    assert gallery.search(people(1), 5).distance.tolist() == [[0]]
    same = np.repeat(people(1).vectors, 1000, axis=0)
    gallery.add([people(1000, source="same", vectors=same)])
    assert gallery.search(people(1), 4).index.tolist() == [[0, 1, 2, 3]]
    assert gallery.search(people(1), 4, by="track").index.shape == (1, 4)


def test_a_known_source_is_refused_replaced_or_kept_beside(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(40), people(8, source="c2.mp4")])
    with pytest.raises(InputError, match=r"c1\.mp4: in the gallery"):
        gallery.add([people(24)])
    assert len(Gallery(folder)) == 48
    gallery.add([people(24)], known="replace")
    assert gallery.count(Where(source=("c1.mp4",))) == 24
    assert gallery.count(Where(source=("c2.mp4",))) == 8
    gallery.add([people(24)], known="add")
    assert gallery.count(Where(source=("c1.mp4",))) == 48


def test_what_is_removed_is_in_no_file(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(40)], labels=RowLabels(person="Ada Lovelace"))
    gallery.add([people(40, source="c2.mp4", seed=1)], labels=RowLabels(start=MORNING))
    gallery.add([people(80, source="c3.mp4", seed=2)])
    ada = gallery.read(Where(person=("Ada Lovelace",))).vectors[3].tobytes()
    everything = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(ada in content for content in everything)
    assert gallery.remove(Where(person=("Ada Lovelace",))) == 40
    assert gallery.remove(Where(source=("c3.mp4",), track=2)) == 10
    assert gallery.remove(Where(end=MORNING + timedelta(seconds=0.2))) == 16
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert ada not in content
            assert b"Lovelace" not in content
    assert len(Gallery(folder)) == 24 + 70
    assert [note["rows"] for note in gallery.removals()] == [40, 10, 16]
    found = Gallery(folder).search(people(1, seed=2), 100)
    assert not any(row["source"] == "c3.mp4" and row["track_id"] == 2 for row in found.rows(0))
    with pytest.raises(InputError, match="nothing says which"):
        gallery.remove(Where())
    with pytest.raises(InputError, match=r"person='Ada'"):
        gallery.remove(Where(person=("Ada",)))


def test_what_is_too_old_is_not_found_and_then_forgotten(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of(), keep=timedelta(days=30))
    now = datetime.now(UTC)
    gallery.add([people(40)], labels=RowLabels(start=now - timedelta(days=31)))
    gallery.add(
        [people(40, source="new", seed=1)], labels=RowLabels(start=now - timedelta(days=29))
    )
    gallery.add([people(40, source="undated", seed=2)])
    assert gallery.search(people(1), 200).index.shape == (1, 80)
    assert Gallery(folder).forget() == 40
    assert Gallery(folder).names("source") == ["new", "undated"]
    assert Gallery(folder).forget() == 0
    assert Gallery(folder).forget(now=now + timedelta(days=40)) == 80
    gallery = Gallery(folder)
    assert (len(gallery), files_of(folder)) == (0, set())
    gallery.set_keep(None)
    assert Gallery(folder).keep is None


def test_compacting_keeps_rows_and_their_order(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    for number in range(5):
        gallery.add([people(10 + number, source=f"{number}.mp4", seed=number)])
    query = people(4, seed=9)
    before = gallery.search(query, 60)
    assert gallery.compact() == (5, 1)
    after = Gallery(folder).search(query, 60)
    assert after.index.tolist() == before.index.tolist()
    assert after.rows(1) == before.rows(1)
    assert len(files_of(folder)) == 1
    assert gallery.compact() == (1, 1)


def test_who_searches_sees_the_gallery_as_it_was_opened(folder: Path) -> None:
    writer = Gallery.create(folder, contract_of())
    writer.add([people(40)])
    reader = Gallery(folder)
    before = reader.search(people(2, seed=3), 5)
    writer.remove(Where(source=("c1.mp4",)))
    after = reader.search(people(2, seed=3), 5)
    assert after.index.tolist() == before.index.tolist()
    assert after.rows(0) == before.rows(0)
    assert len(Gallery(folder)) == 0


def _hold(folder: Path, ready: multiprocessing.Queue[int]) -> None:
    from sa_runtime.system.locking import owned

    with owned(folder, folder=True):
        ready.put(1)
        ready.put(2)
        import time

        time.sleep(60)


def test_one_writes_at_a_time(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    context = multiprocessing.get_context("spawn")
    ready: multiprocessing.Queue[int] = context.Queue()
    other = context.Process(target=_hold, args=(folder, ready))
    other.start()
    try:
        ready.get(timeout=60)
        with pytest.raises(InputError, match="is being written by process"):
            gallery.add([people()])
    finally:
        other.kill()
        other.join()
    assert gallery.add([people()]) == 40


def test_damage_is_named(folder: Path) -> None:
    with pytest.raises(MissingFileError, match="sa-deploy index"):
        Gallery(folder)
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people()])
    (vectors,) = folder.glob("segments/*/vectors.npy")
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-4])
    with pytest.raises(InputError, match=r"vectors\.npy: has \d+ bytes"):
        Gallery(folder)
    vectors.unlink()
    with pytest.raises(InputError, match=r"vectors\.npy: is missing"):
        Gallery(folder)
    manifest = folder / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"rows": 40', '"rows": "40"'))
    with pytest.raises(InputError, match="cannot be read"):
        Gallery(folder)
    manifest.write_text(text[:100])
    with pytest.raises(InputError, match="cannot be read"):
        Gallery(folder)


def test_no_gallery_is_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        Gallery.create(tmp_path, contract_of())
    Gallery.create(tmp_path / "g", contract_of(dim=DIM))
    with pytest.raises(InputError, match="a gallery is there"):
        Gallery.create(tmp_path / "g", contract_of())


def test_vectors_that_are_not_finite_leave_the_gallery_as_it_was(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    bad = people(3)
    bad.vectors[1, 2] = np.nan
    with pytest.raises(InputError, match="row 1"):
        gallery.add([people(source="a"), bad])
    assert (len(Gallery(folder)), files_of(folder)) == (0, set())


def test_the_quality_of_rows_is_kept_and_told(folder: Path) -> None:
    stored = people(16)
    column = stored.rows.schema.get_field_index("quality")
    quality = pa.array(np.linspace(0, 1, 16), pa.float32())
    rated = dataclasses.replace(stored, rows=stored.rows.set_column(column, "quality", quality))
    gallery = Gallery.create(folder, contract_of())
    gallery.add([rated])
    gallery.remove(Where(track=0))
    found = Gallery(folder).search(stored.vectors[5:6], 1).rows(0)[0]
    assert (found["track_id"], found["quality"]) == (5, pytest.approx(5 / 15))


def test_a_gallery_without_the_newest_columns_is_read_searched_and_added_to(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(16)])
    rows = next(folder.rglob("rows.arrow"))
    older = gallery.segments[0].rows.drop_columns(["quality"])
    with pa.ipc.new_file(str(rows.with_suffix(".old")), older.schema) as writer:
        writer.write_table(older)
    rows.with_suffix(".old").replace(rows)  # the old file is mapped still
    state = json.loads((folder / MANIFEST).read_text())
    state["segments"][0]["size_bytes"]["rows.arrow"] = rows.stat().st_size
    (folder / MANIFEST).write_text(json.dumps(state))
    gallery = Gallery(folder)
    gallery.add([people(16, source="c2.mp4", seed=1)])
    gallery.compact()
    found = gallery.search(people(16).vectors[5:6], 1).rows(0)[0]
    assert (found["source"], found["track_id"], found["quality"]) == ("c1.mp4", 5, None)


def test_a_search_sees_one_state_though_the_gallery_changes_meanwhile(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(60)])
    gallery.add([people(60, source="c2.mp4", seed=1)])

    class Changing(Where):
        def check_names(self, tables: Sequence[Any]) -> None:
            super().check_names(tables)
            changer = threading.Thread(target=gallery.remove, args=[Where(source=("c1.mp4",))])
            changer.start()
            changer.join()

    query = people(60, source="c2.mp4", seed=1)
    found = gallery.search(query, 3, where=Changing(source=("c2.mp4",)))
    assert len(gallery) == 60
    assert found.index[:, 0].tolist() == list(range(60, 120))
    assert [row["source"] for row in found.rows(7)] == ["c2.mp4"] * 3


def test_numbers_and_times_that_no_gallery_holds_are_refused_and_change_nothing(
    folder: Path,
) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(8)])
    with pytest.raises(InputError, match=r"keep=.*: expected at most 365000 days"):
        gallery.set_keep(timedelta(weeks=999_999))
    with pytest.raises(InputError, match=r"track=99999999999999999999: .* of 64 bits"):
        Where(track=99_999_999_999_999_999_999)
    with pytest.raises(
        InputError, match=r"start='9999-12-31.*: expected a time up to the year 9000"
    ):
        RowLabels(start=datetime(9999, 12, 31, tzinfo=UTC))
    again = Gallery(folder)
    assert again.keep is None
    assert again.search(people(1), 8).index.shape == (1, 8)
    gallery.set_keep(timedelta(days=365_000))
    assert len(gallery) == 8


def test_a_full_disk_is_named_and_leaves_the_gallery_as_it_was(folder: Path) -> None:
    gallery = Gallery.create(folder, contract_of())
    gallery.add([people(8)])
    before = files_of(folder)
    with files_up_to(20_000), pytest.raises(OSError, match=re.escape(str(folder))):
        gallery.add([people(2000, source="c2.mp4")])
    assert files_of(folder) == before
    assert len(Gallery(folder)) == 8
