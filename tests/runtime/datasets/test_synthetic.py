"""The synthetic world: determinism, layout, ground truth, refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.datasets.synthetic import SyntheticConfig, work, write_synthetic
from sa_runtime.datasets.synthetic.body import draw
from sa_runtime.datasets.synthetic.cameras import Camera, camera
from sa_runtime.datasets.synthetic.people import person
from sa_runtime.datasets.synthetic.shots import Placed, Pose, place
from sa_runtime.datasets.synthetic.tubes import View
from sa_runtime.datasets.synthetic.video import truths
from sa_runtime.errors import DatasetError, InputError

TINY = SyntheticConfig(
    seed=3,
    identities=6,
    cameras=3,
    images_per_camera=2,
    distractors=5,
    junk=4,
    videos=1,
    video_seconds=0.5,
    people_per_video=2,
    fps=8,
    frame_width=320,
    frame_height=180,
)
NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d{2})\.jpg")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "world"
    write_synthetic(out, TINY, workers=1)
    return out


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def labels(folder: Path) -> list[tuple[int, int]]:
    """(person, camera) of every image, by the names alone."""
    found = [NAME.fullmatch(path.name) for path in folder.iterdir()]
    assert all(found)
    return [(int(match[1]), int(match[2])) for match in found if match]


def test_same_seed_gives_same_bytes_with_any_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "again", TINY, workers=2)
    assert contents(tmp_path / "again") == contents(tiny)


def test_other_seed_gives_other_images(tiny: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "other", dataclasses.replace(TINY, seed=4, videos=0), workers=1)
    first, second = set(contents(tiny).values()), set(contents(tmp_path / "other").values())
    assert not first & second


def test_layout_and_counts(tiny: Path) -> None:
    folders = {path.name for path in tiny.iterdir()}
    assert folders == {
        "bounding_box_train",
        "query",
        "bounding_box_test",
        "videos",
        "synthetic.json",
    }
    train = labels(tiny / "bounding_box_train")
    query = labels(tiny / "query")
    gallery = labels(tiny / "bounding_box_test")
    assert len(train) == 3 * 3 * 2
    assert sorted(query) == sorted({(p, c) for p, c in gallery if p > 0})
    assert [p for p, _ in gallery].count(0) == 5
    assert [p for p, _ in gallery].count(-1) == 4
    assert len(gallery) == 3 * 3 * 1 + 5 + 4
    record = json.loads((tiny / "synthetic.json").read_text())
    assert record["config"] == dataclasses.asdict(TINY)
    assert record["counts"]["train"] == len(train)
    assert record["counts"]["gallery"] == 9


def test_images_have_the_configured_size(tiny: Path) -> None:
    for path in tiny.rglob("*.jpg"):
        image = cv2.imread(str(path))
        assert image is not None
        assert image.shape == (128, 64, 3)


def test_train_and_test_people_are_disjoint_and_seen_by_several_cameras(tiny: Path) -> None:
    train = {p for p, _ in labels(tiny / "bounding_box_train")}
    cameras: dict[int, set[int]] = defaultdict(set)
    for folder in ("query", "bounding_box_test"):
        for p, c in labels(tiny / folder):
            if p > 0:
                cameras[p].add(c)
    assert train.isdisjoint(cameras)
    assert train | set(cameras) == set(range(1, 7))
    assert all(len(seen) >= 2 for seen in cameras.values())


def test_video_and_ground_truth_agree(tiny: Path) -> None:
    video = cv2.VideoCapture(str(tiny / "videos" / "c1.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == 4
    assert frames[0].shape == (180, 320, 3)
    test_people = {p for p, _ in labels(tiny / "query")}
    rows = [line.split(",") for line in (tiny / "videos" / "c1.gt.txt").read_text().splitlines()]
    assert rows
    assert all(row[6:] == ["1", "-1", "-1", "-1"] for row in rows)
    for row in rows:
        frame, number, left, top, width, height = map(float, row[:6])
        assert 1 <= frame <= 4
        assert number in test_people
        assert left >= 0
        assert top >= 0
        assert width > 0
        assert height > 0
        assert left + width <= 320
        assert top + height <= 180
    assert len({tuple(row[:2]) for row in rows}) == len(rows)


def test_people_in_a_video_look_as_in_the_crops() -> None:
    """The box of a person's only layer is the tight box of what was drawn."""
    eye = camera(TINY, 0)
    pose = Pose(x_m=0.4, distance_m=eye.near_m + 1, heading=1.0, phase=0.5)
    layer = place(person(3, 1), pose, eye)
    (truth,) = truths([1], [layer], 320, 180)
    assert truth.box == layer.box.clipped(320, 180)
    standing = eye.scale(pose.distance_m) * person(3, 1).height_m
    assert layer.box.height == pytest.approx(standing, rel=0.15)


def block(left: int, top: int, width: int, height: int) -> Placed:
    return Placed(
        np.zeros((height, width, 3), np.uint8), np.ones((height, width), np.float32), left, top
    )


def test_truth_leaves_out_who_is_hidden_or_outside() -> None:
    behind, front = block(10, 10, 10, 20), block(11, 10, 10, 20)
    assert [t.person for t in truths([7, 8], [behind, front], 100, 100)] == [8]
    beside = block(15, 10, 10, 20)
    assert [t.person for t in truths([7, 8], [behind, beside], 100, 100)] == [7, 8]
    outside = block(-8, 10, 10, 20)
    assert truths([7], [outside], 100, 100) == []
    gone = block(-50, 200, 10, 20)
    assert truths([7], [gone], 100, 100) == []
    cut = truths([7], [block(-5, 90, 10, 20)], 100, 100)
    assert cut == []
    half = truths([7], [block(-5, 10, 10, 20)], 100, 100)
    assert (half[0].box.left, half[0].box.width) == (0, 5)


def test_views_of_one_person_differ_where_they_should() -> None:
    """A print at the front shows from the front only."""
    plain = dataclasses.replace(
        person(0, 1),
        upper="sweater",
        upper_pattern="plain",
        sleeve_colour=(200, 60, 60),
        upper_colours=((200, 60, 60), (10, 10, 10), (10, 10, 10)),
        front_logo="box",
        back_logo="none",
        logo_colour=(40, 220, 60),
        bag="none",
        scarf=None,
        lower_colours=((60, 60, 60), (60, 60, 60)),
        shoe=(50, 50, 50),
        hat="none",
    )

    def green(yaw: float) -> int:
        sprite = draw(plain, View(yaw=yaw, pitch=0.1, phase=0.7, light=0.0))
        b, g, r = (sprite.colour[..., channel].astype(int) for channel in range(3))
        return int(((g > 2 * b) & (g > 2 * r)).sum())

    assert green(0.0) > 400
    assert green(math.pi) == 0


@settings(max_examples=25)
@given(
    number=st.integers(1, 10_000),
    yaw=st.floats(-10, 10),
    pitch=st.floats(0.0, 0.6),
    phase=st.floats(0, 20),
)
def test_every_person_can_be_drawn_from_anywhere(
    number: int, yaw: float, pitch: float, phase: float
) -> None:
    sprite = draw(person(0, number), View(yaw=yaw, pitch=pitch, phase=phase, light=0.3), unit=96)
    height, width = sprite.alpha.shape
    assert sprite.colour.shape == (height, width, 3)
    assert 70 < height < 120
    assert 15 < width < 100
    assert sprite.alpha[0].any()
    assert sprite.alpha[:, 0].any()
    assert 0.15 < (sprite.alpha > 0).mean() < 0.95


def test_a_camera_projects_as_a_pinhole() -> None:
    eye: Camera = camera(TINY, 1)
    x, y = eye.foot(0.0, 6.0)
    assert x == 160
    assert y == pytest.approx(eye.horizon + eye.focal * eye.pole_m / 6.0)
    right, _ = eye.foot(eye.half_width_m(6.0), 6.0)
    assert right == pytest.approx(320)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": -1}, "seed=-1: expected 0 to 4294967295"),
        ({"identities": 1}, "identities=1: expected 2 to 9999"),
        ({"identities": 2.5}, "identities=2.5: expected 2 to 9999, a number of type int"),
        ({"identities": True}, "identities=True: expected 2 to 9999, a number of type int"),
        ({"cameras": 1}, "cameras=1: expected 2 to 9"),
        ({"images_per_camera": 1}, "images_per_camera=1: expected 2 to 99"),
        ({"train_fraction": math.nan}, "train_fraction=nan: expected 0.0 to 1.0"),
        ({"train_fraction": 0.0}, "leaves 0 of 200 identities to train on"),
        ({"train_fraction": 1.0}, "leaves 200 of 200 identities to train on"),
        ({"videos": 7}, "videos=7: expected 0 to 6"),
        ({"people_per_video": 101}, "people_per_video=101: expected 1 to 100"),
        ({"video_seconds": 0.0}, "video_seconds=0.0: expected 0.1 to 3600.0"),
        ({"fps": 0}, "fps=0: expected 1 to 60"),
        ({"frame_width": 321}, "frame_width=321: expected an even number"),
    ],
)
def test_config_names_field_value_and_rule(changes: dict[str, float], text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        SyntheticConfig(**changes)  # type: ignore[arg-type]


def test_split_depends_on_the_seed_only() -> None:
    train, test = SyntheticConfig(seed=1).split()
    assert (len(train), len(test)) == (100, 100)
    assert SyntheticConfig(seed=1, cameras=3, videos=0).split() == (train, test)
    assert SyntheticConfig(seed=2).split() != (train, test)


def test_workers_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers=0: expected at least 1"):
        write_synthetic(tmp_path / "x", TINY, workers=0)


class TestExistingFolder:
    small = dataclasses.replace(TINY, videos=0, identities=2, cameras=2, distractors=0, junk=0)

    def test_a_data_set_is_kept_without_force(self, tmp_path: Path) -> None:
        out = tmp_path / "world"
        write_synthetic(out, self.small)
        before = contents(out)
        with pytest.raises(DatasetError, match="another name, or replace it with `force=True`"):
            write_synthetic(out, dataclasses.replace(self.small, seed=9))
        assert contents(out) == before

    def test_force_replaces_a_data_set(self, tmp_path: Path) -> None:
        out = tmp_path / "world"
        write_synthetic(out, self.small)
        before = contents(out)
        write_synthetic(out, dataclasses.replace(self.small, seed=9), force=True)
        assert contents(out) != before
        assert [path.name for path in tmp_path.iterdir()] == ["world"]

    def test_force_never_replaces_anything_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(DatasetError, match=r"is no synthetic data set .*choose another name"):
            write_synthetic(tmp_path, self.small, force=True)
        assert (tmp_path / "thesis.txt").exists()

    def test_an_empty_folder_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "world").mkdir()
        assert write_synthetic(tmp_path / "world", self.small)["query"] == 2

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "world").write_text("")
        with pytest.raises(DatasetError, match="exists and is no folder; choose another name"):
            write_synthetic(tmp_path / "world", self.small)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "world", TINY, workers=workers, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old(tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "world"
    write_synthetic(out, TestExistingFolder.small)
    before = contents(out)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(out, TINY, workers=1, force=True, on_progress=stop)
    assert contents(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_progress_adds_up_to_the_work(tmp_path: Path) -> None:
    told: list[int] = []
    config = TestExistingFolder.small
    write_synthetic(tmp_path / "world", config, workers=1, on_progress=told.append)
    assert sum(told) == work(config) == 2 * 2 * 2


def test_shared_fixture_is_a_data_set(synthetic_root: Path) -> None:
    def numbers() -> Iterator[int]:
        yield from (p for p, _ in labels(synthetic_root / "query"))

    assert len(set(numbers())) == 12
    assert (synthetic_root / "videos" / "c1.mp4").stat().st_size > 1000
