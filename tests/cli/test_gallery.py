from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sa_runtime.gallery.gallery import Gallery
from sa_runtime.outputs.parquet import vector_array
from sa_runtime.outputs.read import read_embeddings
from tests.cli.invoke import invoke

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def said(*words: object) -> dict[str, Any]:
    done = invoke(*words, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Six images; the last two are equal."""
    folder = tmp_path / "crops"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        image = rng.integers(0, 256, (50, 25, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    shutil.copy(folder / "4.png", folder / "5.png")
    return folder


@pytest.fixture
def gallery(tiny_model: TinyModel, crops: Path, tmp_path: Path) -> Path:
    people = tmp_path / "people.parquet"
    said("embed", tiny_model.path, crops, "--out", people, "--camera", "door")
    result = said("index", people, "--out", tmp_path / "gallery", "--start", "2026-05-01T08:00Z")
    assert (result["added"], result["rows"], result["cameras"]) == (6, 6, {"door": 6})
    return tmp_path / "gallery"


def test_a_first_run_that_fails_leaves_no_gallery(
    gallery: Path, tiny_model: TinyModel, make_tiny_model: Callable[..., TinyModel], tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    said("embed", make_tiny_model(seed=1).path, tmp_path / "crops", "--out", other)
    people, new = tmp_path / "people.parquet", tmp_path / "new"
    for words in ((people, other), (people, tmp_path / "gone.parquet"), (people, people)):
        done = invoke("index", *words, "--out", new)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert not new.exists()
    (tmp_path / "there").mkdir()
    done = invoke("index", tmp_path / "there", "--out", new)
    assert "there: no stored embeddings in it, since it has no _manifest.json" in done.stderr
    assert invoke("index", people, other, "--out", tmp_path / "there").returncode == 2
    assert list((tmp_path / "there").iterdir()) == []


def test_a_gallery_keeps_its_method_and_type(gallery: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.parquet"
    for option, said_of_it in (("--method hnsw", "is exact"), ("--dtype float16", "is float32")):
        done = invoke("index", people, "--out", gallery, *option.split(), "--known", "add")
        assert done.returncode == 2
        assert said_of_it in done.stderr
    assert len(Gallery(gallery)) == 6
    same = ("--method", "exact", "--dtype", "float32", "--known", "add")
    assert said("index", people, "--out", gallery, *same)["rows"] == 12


def test_too_few_rows_for_an_index_are_told(gallery: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed: no graph can be made here")
    done = invoke("index", tmp_path / "people.parquet", "--out", tmp_path / "g", "--method", "hnsw")
    assert "exact; hnsw where 1,000 rows or more are added at once" in done.stdout


def test_what_is_advised_can_be_pasted(gallery: Path, tmp_path: Path) -> None:
    place = tmp_path / "a place; of mine"
    place.mkdir()
    shutil.copy(tmp_path / "people.parquet", place / "my people.parquet")
    done = invoke("index", place / "my people.parquet", "--out", place / "my gallery")
    advice = done.stderr.split("Search it with: ")[1].splitlines()[0]
    words = shlex.split(advice)
    assert words[0] == "sa-deploy"
    assert invoke(*words[1:]).returncode == 0


def test_an_image_finds_itself_first(gallery: Path, tiny_model: TinyModel, crops: Path) -> None:
    options = ("--image", crops / "2.png", "--image", crops / "5.png", "--model", tiny_model.path)
    result = said("search", gallery, *options, "--threads", 1, "--top", "2", "--by", "row")
    first, second = result["results"]
    assert first["query"] == str(crops / "2.png")
    assert first["found"][0]["source"] == str(crops / "2.png")
    assert first["found"][0]["time"].startswith("2026-05-01T08:00:00")
    assert first["found"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert [row["source"] for row in second["found"]] == [
        str(crops / "4.png"),
        str(crops / "5.png"),
    ]
    table = invoke("search", gallery, *options, "--top", "2")
    assert "2.png" in table.stdout
    assert "in 6 rows" in table.stdout


def test_stored_vectors_and_filters(gallery: Path, tmp_path: Path) -> None:
    vectors = ("--vectors", tmp_path / "people.parquet")
    found = said("search", gallery, *vectors, "--top", "1")["results"]
    assert [row["found"][0]["source"] for row in found] == [
        str(tmp_path / "crops" / f"{number}.png") for number in (0, 1, 2, 3, 4, 4)
    ]
    source = tmp_path / "crops" / "3.png"
    only = said("search", gallery, *vectors, "--in-source", source)["results"]
    assert {row["source"] for result in only for row in result["found"]} == {str(source)}
    late = said("search", gallery, *vectors, "--from", "2026-05-02T00:00Z")["results"]
    assert late[0]["found"] == []
    assert (
        "nothing found" in invoke("search", gallery, *vectors, "--from", "2026-05-02T00:00Z").stdout
    )
    wrong = invoke("search", gallery, *vectors, "--camera", "dor")
    assert wrong.returncode == 2
    assert "--camera dor: no row of the gallery has it; there are door" in wrong.stderr


def colours_of_the_query(sheet: Path) -> set[tuple[int, ...]]:
    """In the inside of the first picture of a contact sheet."""
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    inside: Any = np.asarray(drawn)[70:226, 38:106].reshape(-1, 3).tolist()
    return {tuple(pixel) for pixel in inside}


def test_a_track_finds_others_and_not_itself(
    tiny_model: TinyModel, clip: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        video = tmp_path / f"{name}.mp4"
        shutil.copy(clip.video, video)
        embedded = tmp_path / f"{name}.parquet"
        boxes = ("--detections", clip.detections, "--camera", name)
        said("embed", tiny_model.path, video, *boxes, "--out", embedded)
        said("index", embedded, "-o", tmp_path / "gallery")
    track = next(
        track
        for track in read_embeddings(tmp_path / "a.parquet").rows["track_id"].to_pylist()
        if track is not None
    )
    words = ("search", tmp_path / "gallery", "--track", track)
    both = invoke(*words)
    assert both.returncode == 2
    assert "name one with --source" in both.stderr
    result = said(*words, "--source", tmp_path / "a.mp4", "--top", "3")["results"][0]
    assert (result["found"][0]["source"], result["found"][0]["track_id"]) == (
        str(tmp_path / "b.mp4"),
        track,
    )
    seen = [(row["source"], row["track_id"]) for row in result["found"]]
    assert len(set(seen)) == 3
    assert (str(tmp_path / "a.mp4"), track) not in seen
    sheet = tmp_path / "sheet.png"
    said(*words, "--source", tmp_path / "a.mp4", "--picture", sheet)
    assert len(colours_of_the_query(sheet)) > 3
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "b.mp4").unlink()
    without = invoke(*words, "--source", tmp_path / "a.mp4", "--picture", sheet)
    assert "pictures are not there any more" in without.stderr
    assert colours_of_the_query(sheet) == {(232, 228, 224)}
    gone = invoke("search", tmp_path / "gallery", "--track", 999, "--source", tmp_path / "a.mp4")
    assert gone.returncode == 2
    tracks = sorted(set(Gallery(tmp_path / "gallery").tracks(str(tmp_path / "a.mp4"))))
    assert f"--track 999: not among the tracks of {tmp_path / 'a.mp4'}; there are " in gone.stderr
    assert str(tracks[0]) in gone.stderr.split("there are ")[1]
    none = invoke(*words, "--source", tmp_path / "a.mp4", "--camera", "b", "--from", "1000")
    assert none.returncode == 0
    assert "nothing found" in none.stdout


def test_what_is_searched_for_must_be_one_thing(gallery: Path, crops: Path) -> None:
    for words in ((), ("--track", 1, "--image", crops / "1.png")):
        done = invoke("search", gallery, *words)
        assert done.returncode == 2
        assert "one of them" in done.stderr
    done = invoke("search", gallery, "--image", crops / "1.png")
    assert "pass --model" in done.stderr
    done = invoke("search", gallery, "--track", 1)
    assert f"--track 1: not among the tracks of the gallery {gallery}; its rows are" in done.stderr
    assert "of no track; search by an image or by vectors" in done.stderr
    done = invoke("search", gallery, "--vectors", "x.parquet", "--source", "y")
    assert "--in-source" in done.stderr


def test_a_known_source_names_the_option(gallery: Path, tmp_path: Path) -> None:
    done = invoke("index", tmp_path / "people.parquet", "--out", gallery)
    assert done.returncode == 2
    assert "--known replace" in done.stderr
    result = said("index", tmp_path / "people.parquet", "--out", gallery, "--known", "replace")
    assert (result["added"], result["rows"]) == (6, 6)


def test_removing_keeping_and_looking(gallery: Path, tmp_path: Path) -> None:
    result = said(
        "index", tmp_path / "people.parquet", "-o", gallery, "--known", "add", "--person", "Ada"
    )
    assert (result["rows"], result["persons"]) == (12, {"Ada": 6})
    assert said("gallery", "compact", gallery) == {"segments_before": 2, "segments": 1}
    removed = said("gallery", "remove", gallery, "--person", "Ada")
    assert removed == {"removed": 6, "rows": 6, "still_there": 0}
    shown = invoke("gallery", "info", gallery)
    assert "door (6)" in shown.stdout
    assert "6 rows" in shown.stdout
    assert said("gallery", "keep", gallery, "99w")["forgotten"] == 0
    assert Gallery(gallery).keep is not None
    assert said("gallery", "keep", gallery, "ever") == {"forgotten": 0, "rows": 6, "keep": "ever"}
    bad = invoke("gallery", "keep", gallery, "soon")
    assert bad.returncode == 2
    assert "such as 30d" in bad.stderr
    nothing = invoke("gallery", "remove", gallery)
    assert nothing.returncode == 2


def test_crops_of_removed_rows_go_with_them(
    tiny_model: TinyModel, crops: Path, tmp_path: Path
) -> None:
    cut, people = tmp_path / "cut", tmp_path / "p.parquet"
    said("embed", tiny_model.path, crops, "--out", people, "--crops", cut)
    said("index", people, "-o", tmp_path / "g")
    assert len(list(cut.rglob("*.jpg"))) == 6
    source = crops / "3.png"
    said("gallery", "remove", tmp_path / "g", "--source", source, "--crops", cut)
    assert len(list(cut.rglob("*.jpg"))) == 5


def test_calibrating_on_a_data_set_gives_verdicts(
    tiny_onnx_model: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    people, gallery = tmp_path / "p.parquet", tmp_path / "g"
    said("embed", tiny_onnx_model, synthetic_root / "query", "--out", people)
    said("index", people, "--out", gallery)
    data = ("-d", "synthetic", "--data-dir", synthetic_root)
    words = ("calibrate", gallery, "--model", tiny_onnx_model, *data, "--threads", 1)
    made = said(*words, "--false-accepts", "0.02")
    assert made["false_accept_rate"]["value"] <= 0.02
    assert made["match_below"] <= made["nobody_from"]
    assert [row["rate"] for row in made["open_set"]["at"]] == [0.02, 1e-2, 1e-3, 1e-4]
    found = said("search", gallery, "--vectors", people, "--top", "3")["results"]
    assert {result["verdict"] for result in found} == {"match"}
    assert all(result["found"][0]["verdict"] == "match" for result in found)
    table = invoke("search", gallery, "--vectors", people, "--top", "3")
    assert "match (at 0.02 false matches a comparison)" in table.stdout
    shown = invoke(*words, "--false-accepts", "0.02")
    assert "perhaps" in shown.stdout
    assert "people found (DIR)" in shown.stdout
    refused = invoke(*words, "--false-accepts", "1e-9")
    assert refused.returncode == 2
    assert "--false-accepts 1e-09" in refused.stderr
    images = tmp_path / "images.parquet"
    folders = (synthetic_root / "query", synthetic_root / "bounding_box_test")
    said("embed", tiny_onnx_model, *folders, "--out", images)
    stored = said("calibrate", gallery, "--model", images, *data, "--false-accepts", "0.02")
    assert stored["match_below"] == pytest.approx(made["match_below"], abs=1e-4)
    assert stored["genuine_pairs"] == made["genuine_pairs"]
    less = invoke("calibrate", gallery, "--model", people, *data)
    assert less.returncode == 2
    assert "no row of the image" in less.stderr
    neither = invoke("calibrate", gallery)
    assert neither.returncode == 2
    assert "expected --marked FILE" in neither.stderr


def test_rows_that_are_too_old_are_gone_at_once(gallery: Gallery, tmp_path: Path) -> None:
    past = ("--start", "2020-01-01T00:00Z", "--keep", "1d")
    done = invoke("index", tmp_path / "people.parquet", "-o", tmp_path / "old", *past)
    assert done.returncode == 0
    assert "6 rows are older than they are kept, and are gone already" in done.stderr
    assert len(Gallery(tmp_path / "old")) == 0


def changed(people: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """A file of embeddings with other vectors, as somebody may write it."""
    table = pq.read_table(people)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    column = vector_array(np.asarray(change(vectors.copy()), np.float32))
    place = table.schema.get_field_index("embedding")
    table = table.set_column(place, pa.field("embedding", column.type, nullable=False), column)
    pq.write_table(table, people.with_name(name))
    return people.with_name(name)


def zero(vectors: Any) -> Any:
    vectors[3] = 0
    return vectors


@pytest.mark.parametrize(
    ("change", "said_of_it"),
    [
        (zero, "the vector of row 3 is of length 0, expected the length 1"),
        (lambda vectors: 100 * vectors, "the vector of row 0 is of length 100, expected"),
        (lambda vectors: np.nan * vectors, "the vector of row 0 is not finite, expected"),
    ],
)
def test_vectors_that_no_model_gives_are_refused(
    change: Callable[[Any], Any], said_of_it: str, gallery: Path, tmp_path: Path
) -> None:
    odd = changed(tmp_path / "people.parquet", "odd.parquet", change)
    for words in (("index", odd, "-o", tmp_path / "new"), ("search", gallery, "--vectors", odd)):
        done = invoke(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{odd}: {said_of_it}" in done.stderr
    assert not (tmp_path / "new").exists()


def test_equal_vectors_and_float16_are_searched(gallery: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.parquet"
    equal = changed(people, "equal.parquet", lambda vectors: np.repeat(vectors[:1], 6, axis=0))
    half = changed(people, "half.parquet", lambda vectors: vectors.astype(np.float16))
    for file, expected in ((equal, [0, 0, 0, 0, 0, 0]), (half, [0, 1, 2, 3, 4, 4])):
        results = said("search", gallery, "--vectors", file, "--top", 1)["results"]
        names = [result["found"][0]["source"] for result in results]
        assert names == [str(tmp_path / "crops" / f"{number}.png") for number in expected]


def test_odd_questions_end_in_an_answer_or_a_way_out(gallery: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.parquet"
    none = tmp_path / "none.parquet"
    pq.write_table(pq.read_table(people).slice(0, 0), none)
    vectors = ("--vectors", people)
    picture = ("--picture", tmp_path / "sheet.png")
    for words, way_out in (
        (("--vectors", none), f"{none}: holds no vectors; expected at least one"),
        ((*vectors, "--in-source", "x"), "--in-source x: no row of the gallery has it"),
        ((*vectors, *picture, "--crops", tmp_path / "no"), "no such folder; expected crops"),
        ((*vectors, "--crops", tmp_path), "pass it too"),
        (("--image", people, "--model", tmp_path), f"{tmp_path}: a folder; expected a model"),
    ):
        done = invoke("search", gallery, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert way_out in done.stderr
    for top in (10**7, 10**30):
        results = said("search", gallery, *vectors, "--top", top)["results"]
        assert [len(result["found"]) for result in results] == [6] * 6
    never = invoke("gallery", "keep", gallery, "0d")
    assert "KEEP 0d: expected a number and a unit" in never.stderr
    marks = tmp_path / "who.csv"
    marks.write_text("source,track_id,person\ngone.mp4,1,Ada\n")
    unknown = invoke("calibrate", gallery, "--marked", marks)
    assert unknown.returncode == 2
    assert f"{marks}: marks the source 'gone.mp4', of which the gallery" in unknown.stderr


def test_links_in_a_circle_are_told(gallery: Path, tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    for words in ((tmp_path / "people.parquet", "-o", circle), (circle, "-o", tmp_path / "new")):
        done = invoke("index", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(circle) in done.stderr
