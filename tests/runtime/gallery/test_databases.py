"""Databases are searched as a gallery is: the same rows, distances and order."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import ContractError, InputError
from sa_runtime.gallery.databases import DatabaseGallery
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.queries import track_query
from sa_runtime.gallery.rows import Where
from sa_runtime.outputs.base import OutputOptions, Progress, StoredEmbeddings, StoredType
from sa_runtime.outputs.columns import rows_of
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.outputs.table import output_kind
from tests.runtime.gallery.conftest import contract_of, people

PACKAGES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


@pytest.fixture(params=list(PACKAGES))
def suffix(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    return name


def database(target: Path, parts: list[StoredEmbeddings], dtype: StoredType = "float32") -> Path:
    """As `embed` writes it."""
    output = output_kind(target)(target, parts[0].contract, OutputOptions(dtype=dtype))
    rows = 0
    for part in parts:
        with output.part() as writer:
            writer.write(rows_of(part.rows), part.vectors)
        rows += len(part.rows)
        output.commit(Progress(rows=rows, complete=part is parts[-1]))
    output.close()
    return target


def pair(
    folder: Path, suffix: str, parts: list[StoredEmbeddings], dtype: StoredType = "float32"
) -> tuple[Gallery, DatabaseGallery]:
    gallery = Gallery.create(folder / "gallery", contract_of(), dtype=dtype)
    gallery.add(parts)
    return gallery, DatabaseGallery(database(folder / f"people.{suffix}", parts, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_database_answers_as_a_gallery_does(
    tmp_path: Path, suffix: str, dtype: StoredType
) -> None:
    first = people(160, tracks=8)
    twice = people(80, source="c'2.mp4", camera="c2", vectors=first.vectors[:80])
    gallery, other = pair(tmp_path, suffix, [first, twice], dtype)
    assert len(other) == len(gallery) == 240
    query = people(6, seed=2)
    questions: list[tuple[Where | None, Where | None]] = [
        (None, None),
        (Where(camera=("c2",)), None),
        (Where(source=("c'2.mp4", "c1.mp4"), track=3), None),
        (Where(start=0.3, end=0.9), None),
        (None, Where(source=("c1.mp4",), track=5)),
        (Where(camera=("c1",)), Where(track=2)),
    ]
    with other:
        for where, leave_out in questions:
            for by in ("row", "track"):
                asked = {"where": where, "leave_out": leave_out, "by": by}
                mine = gallery.search(query, 7, **asked)  # type: ignore[arg-type]
                theirs = other.search(query, 7, **asked)  # type: ignore[arg-type]
                assert theirs.index.tolist() == mine.index.tolist(), asked
                assert theirs.distance.tolist() == mine.distance.tolist(), asked
                for number in range(len(query.vectors)):
                    one, two = mine.rows(number), theirs.rows(number)
                    assert [row | {"added": None} for row in one] == two


def test_a_thousand_equal_images_come_in_order(tmp_path: Path, suffix: str) -> None:
    same = people(1000, tracks=1000, vectors=np.tile(people(1).vectors, (1000, 1)))
    gallery, other = pair(tmp_path, suffix, [same])
    with other:
        found = other.search(same.vectors[:2], 5)
        assert found.index.tolist() == gallery.search(same.vectors[:2], 5).index.tolist()
        assert found.index[0].tolist() == [0, 1, 2, 3, 4]


def test_a_track_of_a_database_is_searched_for(tmp_path: Path, suffix: str) -> None:
    gallery, other = pair(tmp_path, suffix, [people(80)])
    with other:
        query = track_query(other, 3, None)
        assert query.vectors.tolist() == track_query(gallery, 3, None).vectors.tolist()
        found = other.search(query, 80, leave_out=query.leave_out)
        assert found.index.shape == (1, 70)
        with pytest.raises(InputError, match="no row of the database has it"):
            track_query(other, 3, "c9.mp4")
        for one in (gallery, other):
            with pytest.raises(InputError, match=r"tracks of c1\.mp4; there are 0 to 7$"):
                track_query(one, 10, "c1.mp4")


def removed_by_its_own_means(path: Path, source: str) -> None:
    """As `docs/guide/what-is-kept.md` says."""
    page = Path(__file__).parents[3] / "docs" / "guide" / "what-is-kept.md"
    fences = re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    fence = next(text for text in fences if f"people.{path.suffix[1:]}" in text)
    exec(fence.replace(f"people{path.suffix}", str(path)).replace("c1.mp4", source), {})


@pytest.mark.filterwarnings("ignore:optimize:UserWarning")
def test_what_a_database_is_told_to_remove_is_in_none_of_its_files(
    tmp_path: Path, suffix: str
) -> None:
    ada, other = people(200, source="ada-lovelace.mp4"), people(200, source="c2.mp4", seed=3)
    path = database(tmp_path / f"people.{suffix}", [ada, other])
    forms = [[vector.tobytes(), pickle.dumps(vector.tolist())[20:-5]] for vector in ada.vectors]

    def still_there() -> tuple[int, bool]:
        content = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
        vectors = sum(any(form in content for form in two) for two in forms)
        return vectors, b"ada-lovelace" in content

    assert still_there() == (200, True)
    removed_by_its_own_means(path, "ada-lovelace.mp4")
    assert still_there() == (0, False)
    with DatabaseGallery(path) as left:
        assert left.search(ada, 200, by="row").index.min() == 200
        with pytest.raises(InputError, match="no row of the database has it"):
            left.check_names(Where(source=("ada-lovelace.mp4",)))
    with pytest.raises(InputError, match="was changed after it was written, with 400 rows"):
        read_embeddings(path)


def test_what_a_database_cannot_answer_is_refused(tmp_path: Path, suffix: str) -> None:
    other = DatabaseGallery(database(tmp_path / f"people.{suffix}", [people(8)]))
    with other:
        with pytest.raises(ContractError, match="space"):
            other.search(people(2, space="another"))
        with pytest.raises(InputError, match="a database knows no names; index it first"):
            other.search(people(2), where=Where(person=("Ada",)))
        with pytest.raises(InputError, match="expected at least 1"):
            other.search(people(2), 0)
    with pytest.raises(InputError, match=r"expected NAME\.lancedb, NAME\.qdrant"):
        DatabaseGallery(tmp_path / "people.sqlite")
