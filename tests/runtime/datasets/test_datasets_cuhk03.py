"""CUHK03 in its protocols and releases."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.datasets.base import cameras_of, persons_of
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.errors import DatasetError, InputError, MissingPackageError
from tests.runtime.datasets.test_datasets_loaders import rows

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures


@pytest.mark.parametrize("boxes", ["labelled", "detected"])
def test_cuhk03_new_protocol_unpacks_once(
    miniatures: Miniatures, tmp_path: Path, boxes: str
) -> None:
    root = miniatures.cuhk03(tmp_path)
    dataset = load_dataset(f"cuhk03-{boxes}", root)
    assert [(s.person, s.camera) for s in dataset.train] == [
        (person, camera) for person in (1, 2, 3) for camera in (0, 0, 1)
    ]
    assert rows(dataset.query) == [("2_001_1_01.png", 4, 0), ("2_002_1_01.png", 5, 0)]
    assert rows(dataset.gallery) == [
        ("2_001_1_02.png", 4, 0),
        ("2_001_2_06.png", 4, 1),
        ("2_002_1_02.png", 5, 0),
        ("2_002_2_06.png", 5, 1),
    ]
    spelt = {"labelled": "labeled", "detected": "detected"}[boxes]
    folder = root / f"images_{spelt}"
    assert dataset.query[0].path.parent == folder
    assert len(list(folder.iterdir())) == 15
    assert sorted(p.name for p in root.iterdir() if p.name.startswith(".")) == []
    # The images are those of the file: RGB there, BGR as OpenCV reads them.
    rng = np.random.default_rng(list(f"{spelt}100".encode()))
    stored = rng.integers(0, 256, (6, 4, 3), np.uint8)
    read = cv2.imread(str(dataset.query[0].path))
    assert read is not None
    np.testing.assert_array_equal(read, stored[..., ::-1])
    # The second load takes the folder and needs the large file no more.
    (root / "cuhk03_release" / "cuhk-03.mat").unlink()
    assert load_dataset("cuhk03", root, boxes=boxes) == dataset


def test_cuhk03_classic_protocol(miniatures: Miniatures, tmp_path: Path) -> None:
    root = tmp_path
    miniatures.cuhk03_mat(root / "cuhk-03.mat")
    first = load_dataset("cuhk03-detected-classic", root)
    assert sorted(set(persons_of(first.query).tolist())) == [1002, 2001]
    assert sorted(set(persons_of(first.train).tolist())) == [1001, 1003, 2002]
    assert first.query == first.gallery
    assert cameras_of(first.query).tolist() == [0, 0, 1, 0, 0, 1]
    second = load_dataset("cuhk03", root, boxes="detected", protocol="classic", split=1)
    assert sorted(set(persons_of(second.query).tolist())) == [1001, 1003]
    with pytest.raises(InputError, match=r"split=2: .*cuhk-03\.mat has the test sets 0 to 1$"):
        load_dataset("cuhk03-labelled-classic", root, split=2)


def test_cuhk03_np_release(miniatures: Miniatures, tmp_path: Path) -> None:
    dataset = load_dataset("cuhk03-detected", miniatures.cuhk03_np(tmp_path))
    assert rows(dataset.query) == [("0004_c1_f0010000.jpg", 4, 0)]
    assert dataset.query[0].path.parent == tmp_path / "detected" / "query"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, "no field labels; expected train_idx, query_idx, gallery_idx, labels "),
        (
            {"query_idx": np.array([[16]])},
            "15 names, 15 labels and indices 1 to 16, which do not fit together; download it again",
        ),
        ({"query_idx": np.array([[0]])}, "15 names, 15 labels and indices 0 to 15, which do not"),
    ],
)
def test_cuhk03_config_that_does_not_fit(
    miniatures: Miniatures, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    root = miniatures.cuhk03(tmp_path)
    config = miniatures.cuhk03_config(root / "cuhk03_new_protocol_config_labeled.mat", **changed)
    with pytest.raises(DatasetError, match=f"^{re.escape(f'{config}: {message}')}"):
        load_dataset("cuhk03-labelled", root)


def test_cuhk03_files_that_cannot_be_read(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cuhk03(tmp_path)
    mat = root / "cuhk03_release" / "cuhk-03.mat"
    mat.write_bytes(mat.read_bytes()[:900])
    with pytest.raises(DatasetError, match=r"cuhk-03\.mat: cannot be read as a MATLAB 7\.3 file"):
        load_dataset("cuhk03-labelled", root)
    assert not (root / "images_labeled").exists()
    config = root / "cuhk03_new_protocol_config_labeled.mat"
    config.write_bytes(b"not MATLAB")
    with pytest.raises(DatasetError, match=r"labeled\.mat: cannot be read as a MATLAB file"):
        load_dataset("cuhk03-labelled", root)


def test_cuhk03_other_hdf5_file_leaves_nothing_behind(
    miniatures: Miniatures, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    root = miniatures.cuhk03(tmp_path)
    mat = root / "cuhk03_release" / "cuhk-03.mat"
    with h5py.File(mat, "w") as other:
        other.create_dataset("x", data=[1])
    with pytest.raises(DatasetError, match=r"not the cuhk-03\.mat of the release, which holds"):
        load_dataset("cuhk03-labelled", root)
    assert sorted(path.name for path in root.iterdir()) == [
        "cuhk03_new_protocol_config_detected.mat",
        "cuhk03_new_protocol_config_labeled.mat",
        "cuhk03_release",
    ]


def test_cuhk03_images_that_are_missing(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cuhk03(tmp_path)
    load_dataset("cuhk03-labelled", root)
    (root / "images_labeled" / "1_002_2_06.png").unlink()
    text = (
        f"{root / 'images_labeled'}: 1 of 15 images of cuhk03_new_protocol_config_labeled.mat are "
        "not in it, the first 1_002_2_06.png; remove the folder to unpack cuhk-03.mat again"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(text)}$"):
        load_dataset("cuhk03-labelled", root)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("boxes", "labeled", "boxes='labeled': expected labelled or detected"),
        ("protocol", "old", "protocol='old': expected new or classic"),
        ("split", 3, "split=3: the new protocol has one split, 0"),
    ],
)
def test_cuhk03_options(tmp_path: Path, option: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_dataset("cuhk03", tmp_path, **{option: value})


@pytest.mark.parametrize(
    ("package", "file"),
    [("h5py", "cuhk-03.mat"), ("scipy.io", "cuhk03_new_protocol_config_labeled.mat")],
)
def test_cuhk03_without_its_packages(
    miniatures: Miniatures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    file: str,
) -> None:
    root = miniatures.cuhk03(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    text = f"reading {file} needs the package '{package}', which is not installed"
    with pytest.raises(MissingPackageError, match=f"^{re.escape(text)}.*sa-deploy\\[train\\]"):
        load_dataset("cuhk03-labelled", root)
    assert not (root / "images_labeled").exists()
