"""Every loader on a miniature of its true layout, against hand-written expectations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_runtime.datasets import synthetic
from sa_runtime.datasets.base import ReidDataset, Sample, cameras_of, persons_of
from sa_runtime.datasets.loading import join, load_dataset, load_datasets
from sa_runtime.datasets.market import SYNTHETIC_RECORD
from sa_runtime.datasets.table import ALIASES, DATASETS, LAYOUTS
from sa_runtime.errors import DatasetError, InputError

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures


def rows(samples: tuple[Sample, ...]) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.person, sample.camera) for sample in samples]


def test_market(miniatures: Miniatures, tmp_path: Path) -> None:
    dataset = load_dataset("market", miniatures.market(tmp_path))
    assert rows(dataset.train) == [
        ("0002_c1s1_000451_03.jpg", 2, 0),
        ("0002_c1s1_000551_01.jpg.jpg", 2, 0),
        ("0002_c2s1_000301_01.jpeg", 2, 1),
        ("0007_c2s3_071002_01.JPG", 7, 1),
        ("0007_c3s3_077419_03.png", 7, 2),
    ]
    assert rows(dataset.query) == [
        ("0001_c1s1_001051_00.jpg", 1, 0),
        ("0003_c4s2_000001_00.jpg", 3, 3),
    ]
    assert rows(dataset.gallery) == [
        ("0000_c2s1_000101_01.jpg", 0, 1),
        ("0000_c5s1_000201_01.jpg", 0, 4),
        ("0001_c1s1_001051_01.jpg", 1, 0),
        ("0001_c2s1_001976_01.jpg", 1, 1),
        ("0003_c4s2_000001_01.jpg", 3, 3),
    ]
    assert dataset.train_labels().tolist() == [0, 0, 0, 1, 1]
    assert all(sample.path.is_file() for sample in dataset.gallery)
    gallery = dataset.counts()["gallery"]
    assert (gallery.images, gallery.persons, gallery.cameras) == (5, 3, 4)


def test_market_name_without_camera_is_refused(miniatures: Miniatures, tmp_path: Path) -> None:
    bad = miniatures.image(miniatures.market(tmp_path) / "query" / "photo.jpg")
    text = (
        f"{bad}: the name does not tell person and camera (from 1); expected a name like "
        "0002_c1s1_000451_03.jpg (person 2, camera 1). Rename the file or take it out"
    )
    with pytest.raises(DatasetError, match=re.escape(text)):
        load_dataset("market", tmp_path)


def test_synthetic_is_read_as_it_is_written(synthetic_root: Path) -> None:
    dataset = load_dataset("synthetic", synthetic_root)
    assert dataset.name == "synthetic"
    assert (dataset.counts()["gallery"].cameras, min(persons_of(dataset.gallery))) == (4, 0)
    assert SYNTHETIC_RECORD == synthetic.dataset.RECORD


def test_duke_leaves_camstyle_out_unless_asked(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.duke(tmp_path)
    miniatures.image(root / "bounding_box_train_camstyle" / "0001_c2_f0046182_fake_2to1.jpg")
    plain = [
        ("0001_c2_f0046182.jpg", 1, 1),
        ("0005_c2_f0000009.jpg", 5, 1),
        ("0005_c8_f0000001.jpg", 5, 7),
    ]
    assert rows(load_dataset("duke", root).train) == plain
    styled = load_dataset("dukemtmc", root, camstyle=True).train
    assert rows(styled) == [*plain, ("0001_c2_f0046182_fake_2to1.jpg", 1, 1)]


@pytest.mark.parametrize("version", ["msmt17", "msmt17_v2"])
def test_msmt17(miniatures: Miniatures, tmp_path: Path, version: str) -> None:
    root = getattr(miniatures, version)(tmp_path)
    dataset = load_dataset("msmt17", root)
    train = [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0000_001_14_0303morning_0025_1.jpg", 0, 13),
        ("0001_000_02_0113noon_0008_0.jpg", 1, 1),
        ("0001_001_15_0113noon_0009_0.jpg", 1, 14),
    ]
    assert rows(dataset.train) == train
    assert rows(load_dataset("msmt17", root, validation=False).train) == train[:3]
    # Test person 0 is not training person 0: the test ids follow the two training ids.
    assert rows(dataset.query) == [("0000_000_01_0302noon_0001_0.jpg", 2, 0)]
    assert rows(dataset.gallery) == [
        ("0000_001_03_0302noon_0002_0.jpg", 2, 2),
        ("0001_000_03_0302noon_0003_0.jpg", 3, 2),
    ]
    assert all(sample.path.is_file() for sample in (*dataset.train, *dataset.gallery))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list_val.txt", "", "{file}: the list is empty; copy or unpack the data set again"),
        (
            "list_train.txt",
            "0000/0000_000_01_0303morning_0015_0.jpg",
            "{file}:1: '0000/0000_000_01_0303morning_0015_0.jpg'; expected an image with its "
            "camera as third number and the person, like "
            "'0000/0000_000_01_0303morning_0015_0.jpg 0'. Copy the list again",
        ),
        (
            "list_query.txt",
            "0005/0005_000_01_0302noon_0001_0.jpg 5\n",
            "{root}/test/0005/0005_000_01_0302noon_0001_0.jpg: no such file, though "
            "list_query.txt names it; unpack the images into {root}/test",
        ),
    ],
)
def test_msmt17_lists_that_do_not_fit(
    miniatures: Miniatures, tmp_path: Path, name: str, text: str, message: str
) -> None:
    root = miniatures.msmt17(tmp_path)
    (root / name).write_text(text)
    expected = message.format(file=root / name, root=root)
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load_dataset("msmt17", root)


def test_folder_with_splits(miniatures: Miniatures, tmp_path: Path) -> None:
    dataset = load_dataset("folder", miniatures.folder(tmp_path))
    assert rows(dataset.train) == [("a.jpg", 7, 0), ("b.jpg", 9, 0)]
    assert rows(dataset.query) == [("q.jpg", 12, 0)]
    assert rows(dataset.gallery) == [("d.jpg", 0, 1), ("g.jpg", 12, 1)]


def test_folder_takes_cameras_from_names_where_all_test_images_have_one(
    miniatures: Miniatures, tmp_path: Path
) -> None:
    for name in ("query/ann/x_c3.jpg", "gallery/ann/y_c1.jpg", "gallery/ben/z_c12_4.jpg"):
        miniatures.image(tmp_path / name)
    dataset = load_dataset("folder", tmp_path)
    assert rows(dataset.query) == [("x_c3.jpg", 1, 2)]
    assert rows(dataset.gallery) == [("y_c1.jpg", 1, 0), ("z_c12_4.jpg", 2, 11)]
    miniatures.image(tmp_path / "gallery/ben/plain.jpg")
    dataset = load_dataset("folder", tmp_path)
    assert cameras_of(dataset.query).tolist() == [0]
    assert cameras_of(dataset.gallery).tolist() == [1, 1, 1]


def test_folder_without_splits_seeks_every_image_among_all_others(
    miniatures: Miniatures, tmp_path: Path
) -> None:
    dataset = load_dataset("folder", miniatures.flat_folder(tmp_path))
    assert dataset.train == ()
    assert dataset.query == dataset.gallery
    expected = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert [(sample.person, sample.camera) for sample in dataset.query] == expected


def test_folder_with_one_number_twice(miniatures: Miniatures, tmp_path: Path) -> None:
    for name in ("0001/a.jpg", "1/a.jpg"):
        miniatures.image(tmp_path / name)
    with pytest.raises(DatasetError, match="the folders 0001 and 1 are one number; write"):
        load_dataset("folder", tmp_path)


@given(
    st.lists(st.tuples(st.integers(-1, 9999), st.integers(1, 15)), min_size=1, unique=True),
    st.sampled_from([".jpg", ".jpg.jpg", ".jpeg", ".png", ".PNG"]),
)
def test_market_names_tell_person_and_camera(
    tmp_path_factory: pytest.TempPathFactory, people: list[tuple[int, int]], suffix: str
) -> None:
    root = tmp_path_factory.mktemp("names")
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir()
        for person, camera in people:
            name = "-1" if person < 0 else f"{person:04d}"
            (root / folder / f"{name}_c{camera}s1_000001_01{suffix}").touch()
    dataset = load_dataset("market", root)
    found = [(sample.person, sample.camera + 1) for sample in dataset.train]
    assert sorted(found) == sorted(pair for pair in people if pair[0] != -1)
    labels = dataset.train_labels().tolist()
    assert list(dict.fromkeys(labels)) == list(range(len({person for person, _ in found})))
    assert len(set(zip(labels, persons_of(dataset.train).tolist(), strict=True))) == len(
        set(labels)
    )


SAMPLES = st.lists(
    st.builds(Sample, st.just(Path("a.jpg")), st.integers(0, 9), st.integers(0, 5)), max_size=6
).map(tuple)
SOURCES = st.lists(
    st.builds(
        ReidDataset,
        name=st.just("x"),
        root=st.just(Path()),
        train=SAMPLES,
        query=SAMPLES,
        gallery=SAMPLES,
    ),
    min_size=1,
    max_size=4,
)


@given(SOURCES)
def test_joined_data_sets_keep_their_people_and_cameras_apart(sources: list[ReidDataset]) -> None:
    joined = join(sources)
    for field in ("person", "camera"):
        of_source = []
        for place in range(len(sources)):
            values = set()
            for split in ("train", "query", "gallery"):
                start = sum(len(getattr(source, split)) for source in sources[:place])
                mine = getattr(sources[place], split)
                part = getattr(joined, split)[start : start + len(mine)]
                values |= {getattr(sample, field) for sample in part}
                shifts = {
                    getattr(new, field) - getattr(old, field)
                    for new, old in zip(part, mine, strict=True)
                }
                assert len(shifts) <= 1
            of_source.append(values)
        assert len(set().union(*of_source)) == sum(map(len, of_source))


def test_several_data_sets(miniatures: Miniatures, tmp_path: Path) -> None:
    market = miniatures.market(tmp_path / "market1501")
    duke = miniatures.duke(tmp_path / "elsewhere" / "DukeMTMC-reID")
    joined = load_datasets("market, duke", f"{market},{duke}")
    assert joined.name == "market,duke"
    assert persons_of(joined.train).tolist() == [2, 2, 2, 7, 7, 9, 13, 13]
    assert cameras_of(joined.train).tolist() == [0, 0, 1, 1, 2, 6, 6, 12]
    assert joined.train_labels().tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert load_datasets(["market", "duke"], [market, duke]) == joined
    (tmp_path / "duke").symlink_to(duke)
    assert rows(load_datasets("market,duke", tmp_path).train) == rows(joined.train)
    assert load_datasets("market", str(market)) == load_dataset("market", market)


def test_several_data_sets_with_folders_that_do_not_fit(
    miniatures: Miniatures, tmp_path: Path
) -> None:
    market = miniatures.market(tmp_path / "market")
    with pytest.raises(InputError, match=r"^2 folders for 3 data sets \(market, duke, msmt17\): "):
        load_datasets("market,duke,msmt17", [market, market])
    text = f"{tmp_path}: no folder duke or dukemtmc in it for the data set duke; rename or link"
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        load_datasets("market,duke", tmp_path)


def test_unknown_names_and_options(tmp_path: Path) -> None:
    text = "dataset='makret': unknown; choose from market, duke, cuhk03, cuhk03-labelled,"
    with pytest.raises(InputError, match=f"^{text}"):
        load_dataset("makret", tmp_path)
    text = "data set duke: unknown option camstile; expected camstyle"
    with pytest.raises(InputError, match=f"^{text}$"):
        load_dataset("duke", tmp_path, camstile=True)


def test_every_name_has_a_layout() -> None:
    assert set(LAYOUTS) == set(DATASETS) >= set(ALIASES.values())
