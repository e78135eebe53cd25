"""What ``check_dataset`` finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sa_runtime.datasets.check import check_dataset
from sa_runtime.datasets.images import image_fault
from sa_runtime.datasets.published import PUBLISHED
from sa_runtime.datasets.table import DATASETS

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures


def test_market_counts(miniatures: Miniatures, tmp_path: Path) -> None:
    report = check_dataset(miniatures.market(tmp_path))
    assert (report.dataset, report.title) == ("market", "Market-1501")
    found = {
        name: (s.images, s.persons, s.cameras, s.junk, s.distractors)
        for name, s in report.splits.items()
    }
    assert found == {
        "train": (5, 2, 3, 1, 0),
        "query": (2, 2, 2, 0, 0),
        "gallery": (5, 3, 4, 2, 2),
    }
    assert report.unreadable == ()
    assert report.problems == (
        "1 of 2 queries have no match under another camera and are left out of the metrics: "
        "0003_c4s2_000001_00.jpg",
    )
    assert report.notes == (
        "train: 5 images, published are 12,936",
        "train: 2 ids, published are 751",
        "query: 2 images, published are 3,368",
        "query: 2 ids, published are 750",
        "gallery: 5 images, published are 15,913",
        "gallery: 3 ids, published are 751",
    )


def test_published_counts_are_the_makers() -> None:
    """Totals as the papers print them, against the splits in the table."""
    total = {
        name: sum(split.images or 0 for split in splits.values())
        for name, splits in PUBLISHED.items()
    }
    assert total["market"] + 3_819 - 3_368 == 12_936 + 19_732  # 32,668 boxes without the queries
    assert total["duke"] == 36_411
    assert total["cuhk03-labelled"] == 14_096
    assert total["cuhk03-detected"] == 14_097
    assert total["msmt17"] == 126_441
    assert sum(PUBLISHED["msmt17"][split].persons for split in ("train", "query")) == 4_101
    assert set(PUBLISHED) <= set(DATASETS)


@pytest.mark.parametrize("built", ["duke", "cuhk03", "cuhk03_np", "msmt17", "folder", "synthetic"])
def test_other_data_sets_are_sound(miniatures: Miniatures, tmp_path: Path, built: str) -> None:
    report = check_dataset(getattr(miniatures, built)(tmp_path))
    assert report.unreadable == ()
    assert report.splits["train"].images > 0
    assert (report.problems == ()) == (built != "synthetic")


def test_synthetic_has_nothing_to_complain(synthetic_root: Path) -> None:
    report = check_dataset(synthetic_root, decode=True)
    assert (report.dataset, report.problems, report.notes) == ("synthetic", (), ())
    assert report.splits["gallery"].junk == 6
    assert report.splits["gallery"].distractors == 12


def test_unreadable_files(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.market(tmp_path)
    folder = root / "bounding_box_test"
    whole = (folder / "0001_c1s1_001051_01.jpg").read_bytes()
    (folder / "0009_c1s1_000001_00.jpg").touch()
    (folder / "0009_c1s1_000002_00.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "0009_c1s1_000003_00.jpg").write_bytes(b"<html>sign in</html>")
    (folder / "0009_c1s1_000004_00.jpg").symlink_to(folder / "gone.jpg")
    broken = folder / "0009_c1s1_000005_00.jpg"
    broken.write_bytes(whole[:20] + whole[-2:])
    found = {path.name[14:16]: fault for path, fault in check_dataset(root).unreadable}
    expected = {
        "01": "empty file",
        "02": "cut off",
        "03": "neither JPEG, PNG, BMP, WebP, TIFF nor GIF",
        "04": "cannot be opened (No such file or directory)",
    }
    assert found == expected
    decoded = {
        path.name[14:16]: fault for path, fault in check_dataset(root, decode=True).unreadable
    }
    assert decoded == expected | {"05": "cannot be decoded"}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_whole_images_have_no_fault(miniatures: Miniatures, tmp_path: Path, suffix: str) -> None:
    path = miniatures.image(tmp_path / f"a{suffix}")
    assert image_fault(path) is None
    assert image_fault(path, decode=True) is None
    data = path.read_bytes()
    path.write_bytes(data + bytes(100))
    assert image_fault(path, decode=True) is None
    for keep in range(0, len(data) - 8, 7):
        path.write_bytes(data[:keep])
        assert image_fault(path) is not None


def test_people_in_train_and_test(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.market(tmp_path)
    miniatures.image(root / "bounding_box_test" / "0007_c1s1_000001_00.jpg")
    miniatures.image(root / "query" / "0007_c1s1_000001_00.jpg")
    miniatures.image(root / "bounding_box_train" / "0001_c1s1_000001_00.jpg")
    problems = check_dataset(root).problems
    assert problems[-1] == "2 ids are in train and in test, which flatters the metrics: 1, 7"


def test_copies_and_foreign_files(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.market(tmp_path)
    for name in ("0001_c2s1_001976_01 (1).jpg", "0001_c2s1_001976_01 - Copy.jpg"):
        miniatures.image(root / "bounding_box_test" / name)
    for name in "abcd":
        (root / "query" / f"0001_c2s1_{name}.psd").touch()
    report = check_dataset(root)
    assert report.problems[-1] == (
        "2 images are named like copies that Windows made, and count twice where the original is "
        "there; delete or rename them: 0001_c2s1_001976_01 (1).jpg, 0001_c2s1_001976_01 - Copy.jpg"
    )
    assert report.notes[-1] == (
        f"{root / 'query'}: 4 files are not images and are passed over: 0001_c2s1_a.psd, "
        "0001_c2s1_b.psd, 0001_c2s1_c.psd and 1 more"
    )


def test_progress_and_options(miniatures: Miniatures, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = miniatures.msmt17(tmp_path)
    report = check_dataset(
        root, "msmt17", advance=lambda *call: calls.append(call), validation=False
    )
    assert report.splits["train"].images == 3
    assert calls == [(done, 6) for done in range(1, 7)]


def test_queries_without_match_against_a_slow_count(miniatures: Miniatures, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for folder, count in (("bounding_box_train", 1), ("query", 30), ("bounding_box_test", 40)):
        for frame in range(count):
            person, camera = rng.integers(1, 15), rng.integers(1, 4)
            miniatures.image(tmp_path / folder / f"{person:04d}_c{camera}s1_{frame:06d}_00.jpg")
    queries, gallery = (
        [(path.name[:4], path.name[6]) for path in (tmp_path / folder).iterdir()]
        for folder in ("query", "bounding_box_test")
    )
    alone = [q for q in queries if not any(g[0] == q[0] and g[1] != q[1] for g in gallery)]
    assert 0 < len(alone) < 30
    problem = check_dataset(tmp_path, "market").problems[0]
    assert problem.startswith(f"{len(alone)} of 30 queries have no match under another camera")
