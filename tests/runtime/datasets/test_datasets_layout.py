"""The usual mistakes with folders: the whole message of each, for every loader."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sa_runtime.datasets.check import check_dataset
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.datasets.recognise import recognise
from sa_runtime.errors import DatasetError, InputError

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures

MARKET_FOLDERS = "bounding_box_train, query and bounding_box_test"
MSMT17_ENTRIES = "train, test, list_train.txt, list_val.txt, list_query.txt and list_gallery.txt"
CONFIG = "cuhk03_new_protocol_config_{}.mat"
CUHK03_MEND = (
    "The config files are in evaluation/data/CUHK03 of "
    "https://github.com/zhunzhong07/person-re-ranking, cuhk-03.mat is in cuhk03_release.zip"
)
AGAIN = "Copy or unpack the data set again"


class Case(NamedTuple):
    """A loader's name, its miniature, and the words of its messages."""

    name: str
    build: str
    title: str
    expected: str
    inside: str  # an entry inside of the data set that people pass by mistake
    missing: str  # an entry without which it is no data set
    without: str  # the message of that, after the root


CASES = [
    Case(
        "market",
        "market",
        "Market-1501",
        MARKET_FOLDERS,
        "bounding_box_train",
        "query",
        f": no query; Market-1501 has {MARKET_FOLDERS}. {AGAIN}",
    ),
    Case(
        "duke",
        "duke",
        "DukeMTMC-reID",
        MARKET_FOLDERS,
        "query",
        "bounding_box_test",
        f": no bounding_box_test; DukeMTMC-reID has {MARKET_FOLDERS}. {AGAIN}",
    ),
    Case(
        "synthetic",
        "synthetic",
        "synthetic data in the layout of Market-1501",
        MARKET_FOLDERS,
        "bounding_box_test",
        "bounding_box_train",
        ": no bounding_box_train; synthetic data in the layout of Market-1501 has "
        f"{MARKET_FOLDERS}. {AGAIN}",
    ),
    *(
        Case(
            f"cuhk03-{boxes}",
            "cuhk03",
            f"CUHK03 ({boxes}, new protocol)",
            f"cuhk-03.mat and {CONFIG.format(spelt)}",
            "cuhk03_release",
            CONFIG.format(spelt),
            f": no {CONFIG.format(spelt)}; CUHK03 ({boxes}, new protocol) has "
            f"cuhk03_release/cuhk-03.mat and {CONFIG.format(spelt)}. {CUHK03_MEND}",
        )
        for boxes, spelt in (("labelled", "labeled"), ("detected", "detected"))
    ),
    Case(
        "msmt17",
        "msmt17",
        "MSMT17",
        MSMT17_ENTRIES,
        "test/0000",
        "list_val.txt",
        f": no list_val.txt; MSMT17 has {MSMT17_ENTRIES}. {AGAIN}",
    ),
    Case(
        "msmt17",
        "msmt17_v2",
        "MSMT17",
        MSMT17_ENTRIES,
        "mask_train_v2",
        "mask_test_v2",
        f": no mask_test_v2; MSMT17 has {MSMT17_ENTRIES.replace('train,', 'mask_train_v2,', 1)}"
        f". {AGAIN}".replace("mask_train_v2, test", "mask_train_v2, mask_test_v2"),
    ),
    Case(
        "folder",
        "folder",
        "a data set of persons' folders",
        "PERSON/*.jpg of two persons or more, or train, query and gallery with such folders",
        "query/12",
        "gallery",
        ": query without gallery; put the other half into {root}/gallery",
    ),
]
EVERY = pytest.mark.parametrize("case", CASES, ids=[case.build for case in CASES])


@pytest.fixture
def build(miniatures: Miniatures) -> Callable[[Case, Path], Path]:
    def built(case: Case, root: Path) -> Path:
        made: Path = getattr(miniatures, case.build)(root)
        return made

    return built


Build = Callable[[Case, Path], Path]


def refused(case: Case, root: Path, message: str) -> None:
    """The loader and the check (told the name) both say exactly this."""
    with pytest.raises(InputError) as caught:
        load_dataset(case.name, root)
    assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        check_dataset(root, case.name)
    assert str(caught.value) == message


@EVERY
def test_one_folder_too_high(case: Case, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "data" / "Set-v15.09.15")
    refused(case, good.parent, f"{good.parent}: {case.title} lies inside of it; pass {good}")


@EVERY
def test_two_folders_too_high(case: Case, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "data" / "set" / "set")
    (tmp_path / "data" / "notes").mkdir()
    root = tmp_path / "data"
    refused(case, root, f"{root}: {case.title} lies inside of it; pass {good}")


@EVERY
def test_several_data_sets_inside(case: Case, build: Build, tmp_path: Path) -> None:
    one, two = build(case, tmp_path / "data" / "one"), build(case, tmp_path / "data" / "two")
    root = tmp_path / "data"
    message = f"{root}: {case.title} lies inside of it 2 times; pass one of {one} and {two}"
    refused(case, root, message)


@EVERY
def test_one_folder_too_low(case: Case, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "set")
    inner = good / case.inside
    refused(case, inner, f"{inner}: inside of {case.title}; pass {good}")


@EVERY
def test_too_low_is_spelt_as_the_user_spells(
    case: Case, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(case, tmp_path / "data" / "set")
    monkeypatch.chdir(tmp_path)
    inner = Path("data/set") / case.inside
    refused(case, inner, f"{inner}: inside of {case.title}; pass data/set")
    monkeypatch.chdir(tmp_path / "data" / "set")
    refused(case, Path(case.inside), f"{case.inside}: inside of {case.title}; pass .")


@EVERY
def test_missing_entry(case: Case, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "set")
    entry = good / case.missing
    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    refused(case, good, f"{good}{case.without.format(root=good)}")


@EVERY
def test_empty_absent_file_and_archive(case: Case, tmp_path: Path) -> None:
    wanted = f"{case.title} with {case.expected}"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".DS_Store").touch()
    refused(case, empty, f"{empty}: the folder is empty; expected {wanted}")
    absent = tmp_path / "absent"
    refused(case, absent, f"{absent}: no such folder; pass the folder of {wanted}")
    archive = tmp_path / "Market-1501-v15.09.15.zip"
    archive.touch()
    refused(case, archive, f"{archive}: an archive; unpack it and pass the folder of {wanted}")
    file = tmp_path / "file.txt"
    file.touch()
    refused(case, file, f"{file}: a file; pass the folder of {wanted}")


@EVERY
def test_archive_that_was_not_unpacked(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "downloads"
    root.mkdir()
    (root / "data-v1.zip").touch()
    message = f"{root}: the archive data-v1.zip is not unpacked; unpack it there first"
    refused(case, root, message)
    with pytest.raises(DatasetError) as caught:
        recognise(root)
    assert str(caught.value) == message


@EVERY
def test_something_else(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "else"
    for name in "abcdef":
        (root / name).mkdir(parents=True)
    held = "a, b, c, d and 2 more"
    refused(case, root, f"{root}: not {case.title}: it holds {held}; expected {case.expected}")


@pytest.mark.parametrize("case", CASES[:3] + CASES[5:7], ids=lambda case: case.build)
@pytest.mark.parametrize("mark", ["upper case", "copy", "archive"])
def test_entry_under_another_name(case: Case, mark: str, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "set")
    entry = good / case.missing
    stem, dot, suffix = case.missing.partition(".")
    other, message = {
        "upper case": (
            case.missing.title(),
            "{root}: no {entry}, but '{other}'; rename it to {entry}",
        ),
        "copy": (
            f"{stem} (1){dot}{suffix}",
            "{root}: no {entry}, but '{other}'; rename it to {entry}",
        ),
        "archive": (
            f"{case.missing}.zip",
            "{root}: no {entry}, but its archive {other}; unpack it there",
        ),
    }[mark]
    if mark == "archive":
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (good / other).touch()
    else:
        entry.rename(good / other)
    refused(case, good, message.format(root=good, entry=case.missing, other=other))


def test_market_folders_under_the_names_of_others(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.market(tmp_path)
    (root / "bounding_box_test").rename(root / "gallery")
    message = f"{root}: no bounding_box_test, but 'gallery'; rename it to bounding_box_test"
    refused(CASES[0], root, message)


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.build)
def test_split_folder_without_images(case: Case, build: Build, tmp_path: Path) -> None:
    good = build(case, tmp_path / "set")
    folder = good / "query"
    for image in folder.iterdir():
        image.unlink()
    again = "copy or unpack the data set again"
    refused(case, good, f"{folder}: no images (.jpg, .jpeg, .png); {again}")
    (folder / "query.zip").touch()
    refused(case, good, f"{folder}: no images, but query.zip; unpack it there")
    inner = shutil.move(
        shutil.copytree(good / "bounding_box_train", tmp_path / "x"), folder / "query"
    )
    refused(case, good, f"{folder}: its images lie in {inner}; move them one folder up")


def test_persons_folders_without_persons(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.folder(tmp_path / "set")
    shutil.rmtree(root / "train" / "7")
    (root / "train" / "9" / "b.jpg").unlink()
    case = CASES[-1]
    refused(
        case, root, f"{root / 'train'}: no persons' folders with images in it; fill or remove it"
    )
    shutil.rmtree(root / "train")
    assert load_dataset("folder", root).train == ()
    miniatures.image(root / "query" / "13.jpg")
    shutil.rmtree(root / "query" / "12")
    message = (
        f"{root / 'query'}: images directly in it; put those of each person into a folder of its "
        f"own, {root / 'query' / 'PERSON'}"
    )
    refused(case, root, message)


def test_persons_folders_passed_by_one_of_them(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.flat_folder(tmp_path / "set")
    message = f"{root / 'ben'}: inside of a data set of persons' folders; pass {root}"
    refused(CASES[-1], root / "ben", message)
    splits = miniatures.folder(tmp_path / "splits")
    message = f"{splits / 'query'}: inside of a data set of persons' folders; pass {splits}"
    refused(CASES[-1], splits / "query", message)


def test_classic_protocol_needs_the_large_file(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cuhk03(tmp_path / "cuhk03")
    shutil.rmtree(root / "cuhk03_release")
    (root / "cuhk03_release").mkdir()
    (root / "cuhk03_release" / "cuhk-03.mat.zip").touch()
    message = (
        f"{root}: no cuhk03_release/cuhk-03.mat, but its archive cuhk-03.mat.zip; unpack it there"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        load_dataset("cuhk03-labelled-classic", root)


@EVERY
def test_mistakes_without_a_name(case: Case, build: Build, tmp_path: Path) -> None:
    """Told nothing, the check finds the same way out; where two titles fit, either will do."""
    good = build(case, tmp_path / "data" / "set")
    for root in (good.parent, good / case.inside):
        if case.inside == "cuhk03_release" == root.name:
            assert recognise(root) == "cuhk03-labelled-classic"
            continue
        with pytest.raises(InputError) as caught:
            check_dataset(root)
        assert str(caught.value).startswith(f"{root}: ")
        assert str(caught.value).endswith(f"; pass {good}")
    if case.build in ("market", "duke", "msmt17", "msmt17_v2", "folder"):
        entry = good / case.missing
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        with pytest.raises(InputError) as caught:
            check_dataset(good)
        assert str(caught.value) == f"{good}{case.without.format(root=good)}".replace(
            "DukeMTMC-reID", "Market-1501"
        )


def test_another_data_set_than_said(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.market(tmp_path)
    message = (
        f"{root}: not MSMT17: it holds bounding_box_test, bounding_box_train, gt_bbox, query and "
        f"readme.txt; expected {MSMT17_ENTRIES}. It is laid out as Market-1501; pass "
        "`dataset='market'`"
    )
    refused(CASES[5], root, message)
