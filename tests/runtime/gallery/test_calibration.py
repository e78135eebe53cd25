from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.gallery.calibration import Stated, calibrate_pairs, rates_at
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.manifest import MANIFEST
from sa_runtime.gallery.marks import calibrate_marked, read_marks
from sa_runtime.gallery.rows import Where
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.vectors import Floats
from tests.runtime.gallery.conftest import contract_of, people

World = tuple[Floats, Labels, Floats, Labels]


def world(seed: int, persons: int = 120, cameras: int = 3, bias: float = 0.0) -> World:
    """People as directions; each picture of one has noise, and each camera a direction of its own.

    ``bias`` is the length of what the camera adds.
    """
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(1, persons + 1), 2 * cameras)
    camera = np.tile(np.repeat(np.arange(cameras), 2), persons)
    base, lights = rng.standard_normal((persons, 32)), rng.standard_normal((cameras, 32))
    values = base[person - 1] + 0.8 * rng.standard_normal((len(person), 32))
    values += bias * lights[camera]
    vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    query = np.arange(len(person)) % 2 == 0
    sides = []
    for rows in (query, ~query):
        labels = Labels(person=person[rows].astype(np.int64), camera=camera[rows].astype(np.int64))
        sides.append((vectors[rows], labels))
    return (*sides[0], *sides[1])


def test_the_threshold_keeps_the_stated_rate_on_its_own_pairs() -> None:
    vectors = world(0)
    made = calibrate_pairs(*vectors, stated=Stated(false_accepts=1e-2, misses=0.1))
    query, one, gallery, two = vectors
    distance = ((query[:, None].astype(float) - gallery[None]) ** 2).sum(axis=2)
    same = one.person[:, None] == two.person
    genuine = distance[same & (one.camera[:, None] != two.camera)]
    impostor = distance[~same]
    assert made.false_accept_rate.value == (impostor < made.match_below).mean() <= 1e-2
    assert made.true_accept_rate.value == pytest.approx((genuine < made.match_below).mean())
    assert (genuine >= made.nobody_from).mean() <= 0.1
    assert (made.genuine_pairs, made.impostor_pairs) == (len(genuine), len(impostor))
    assert made.false_accept_rate.low < made.false_accept_rate.value < made.false_accept_rate.high
    assert made.verdict(made.match_below - 1e-6, (None, None)) == "match"
    assert made.verdict(made.nobody_from, (None, None)) == "nobody"


def test_rates_hold_on_other_worlds() -> None:
    """The interval of the rate on other people reaches the stated rate: it is not exceeded."""
    stated = 1e-2
    made = calibrate_pairs(*world(0), stated=Stated(false_accepts=stated))
    for seed in (1, 2, 3):
        wrong, right = rates_at(*world(seed), made.match_below)
        assert wrong.holds(stated), (seed, wrong)
        assert wrong.high > stated / 3, (seed, wrong)
        assert right.low < made.true_accept_rate.high
        assert right.high > made.true_accept_rate.low
    # A threshold twice as lenient is noticed.
    wrong, _ = rates_at(*world(1), made.match_below + 0.25)
    assert not wrong.holds(stated)


def test_intervals_cover_as_they_say() -> None:
    """Of 30 worlds of one kind, the interval of nearly all holds the rate of the kind."""
    limit = 1.1
    truth = np.mean([rates_at(*world(seed, 150), limit)[0].value for seed in range(200, 220)])
    inside = 0
    for seed in range(30):
        rate, _ = rates_at(*world(seed, 40), limit)
        inside += int(rate.low <= truth <= rate.high)
    assert inside >= 25


def test_pairs_of_cameras_have_thresholds_of_their_own() -> None:
    vectors = world(0, bias=1.5)
    names = {0: "door", 1: "hall", 2: "yard"}
    stated = Stated(false_accepts=1e-2)
    made = calibrate_pairs(*vectors, stated=stated, cameras=names)
    assert len(made.camera_pairs) == 6
    # What a camera adds makes its own pictures alike.
    assert made.camera_pairs["door\tdoor"] < made.camera_pairs["door\thall"]
    between = (made.camera_pairs["door\tdoor"] + made.match_below) / 2
    assert made.verdict(between, ("door", "door")) != "match"
    assert made.verdict(between, ("door", None)) == "match"
    few = calibrate_pairs(*world(0, persons=13), stated=stated, cameras=names)
    assert few.camera_pairs == {}


def test_what_pairs_cannot_show_is_refused() -> None:
    with pytest.raises(InputError, match=r"false_accepts=1e-06.*label more people"):
        calibrate_pairs(*world(0, persons=20), stated=Stated(false_accepts=1e-6))
    for name in ("false_accepts", "misses"):
        with pytest.raises(InputError, match=f"{name}=1"):
            Stated(**{name: 1})


def test_marked_tracks_calibrate_a_gallery_and_stay_with_it(tmp_path: Path) -> None:
    query, one, _, _ = world(0, cameras=2)
    gallery = Gallery.create(tmp_path / "g", contract_of(dim=32))
    who = ["source,track_id,person"]
    for camera in (0, 1):
        rows = np.flatnonzero(one.camera == camera)
        stored = people(
            len(rows), source=f"{camera}.mp4", camera=f"c{camera}", tracks=120, vectors=query[rows]
        )
        stored = type(stored)(rows=stored.rows, vectors=stored.vectors, contract=gallery.contract)
        gallery.add([stored])
        # Track t is person t + 1.
        who += [f"{camera}.mp4,{track},person {track}" for track in range(30)]
    (tmp_path / "who.csv").write_text("\n".join(who))
    marks = read_marks(tmp_path / "who.csv")
    made = calibrate_marked(gallery, marks, origin="who", stated=Stated(false_accepts=1e-2))
    assert (made.persons, made.origin) == (30, "who")
    assert set(made.camera_pairs) <= {"c0\tc0", "c0\tc1", "c1\tc1"}
    gallery.set_calibration(made)
    again = Gallery(tmp_path / "g")
    assert again.calibration == made
    found = again.search(query[:3], 5)
    first = found.rows(0)[0]
    assert (first["distance"], first["verdict"]) == (0, "match")
    assert found.verdict(0) == "match"
    only = Where(source=("0.mp4",), track=0)
    assert again.search(-query[:1], 5, where=only).verdict(0) == "nobody"
    manifest = tmp_path / "g" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"nobody_from"', '"nobody"'))
    with pytest.raises(InputError, match="cannot be read"):
        Gallery(tmp_path / "g")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "line 1 is 'a,b'"),
        ("source,track_id,person\nc1.mp4,x,Ada\n", "line 2: expected a source"),
        ("source,track_id,person\nc1.mp4,1,Ada\nc1.mp4,1,Bob\n", "line 3: names 'Bob' who was"),
        ("", "expected the columns"),
    ],
)
def test_marks_that_cannot_be_read_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_marks(path)
