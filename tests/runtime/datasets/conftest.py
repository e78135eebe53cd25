"""Miniatures of the data sets' true layouts: a few people, images of noise, real MATLAB files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

MARKET = {
    "bounding_box_train": (
        "0002_c1s1_000451_03.jpg",
        "0002_c1s1_000551_01.jpg.jpg",
        "0002_c2s1_000301_01.jpeg",
        "0007_c3s3_077419_03.png",
        "0007_c2s3_071002_01.JPG",
        "-1_c1s1_000401_03.jpg",
    ),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c4s2_000001_00.jpg"),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "-1_c6s1_000401_05.jpg",
        "0000_c2s1_000101_01.jpg",
        "0000_c5s1_000201_01.jpg",
        "0001_c1s1_001051_01.jpg",
        "0001_c2s1_001976_01.jpg",
        "0003_c4s2_000001_01.jpg",
    ),
}
DUKE = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "0005_c8_f0000001.jpg", "0005_c2_f0000009.jpg"),
    "query": ("0004_c1_f0010000.jpg",),
    "bounding_box_test": ("0004_c2_f0020000.jpg", "0003_c7_f0020001.jpg"),
}
MSMT17 = {
    "list_train.txt": "0000/0000_000_01_0303morning_0015_0.jpg 0\n"
    "0000/0000_001_14_0303morning_0025_1.jpg 0\n0001/0001_000_02_0113noon_0008_0.jpg 1\n",
    "list_val.txt": "0001/0001_001_15_0113noon_0009_0.jpg 1\n",
    "list_query.txt": "0000/0000_000_01_0302noon_0001_0.jpg 0\n",
    "list_gallery.txt": "0000/0000_001_03_0302noon_0002_0.jpg 0\n"
    "0001/0001_000_03_0302noon_0003_0.jpg 1\n",
}
CUHK03_PERSONS = (3, 2)
"""People in each of two camera pairs."""


class Miniatures:
    """Writes a data set and returns its root."""

    def image(self, path: Path) -> Path:
        """Noise which its path seeds, 16 x 8."""
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
        _, data = cv2.imencode(suffix, noise(path.name, 16, 8))
        path.write_bytes(data.tobytes())
        return path

    def market(self, root: Path) -> Path:
        for folder, names in MARKET.items():
            for name in names:
                self.image(root / folder / name)
        (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
        (root / "readme.txt").write_text("Market-1501")
        self.image(root / "gt_bbox" / "0001_c1s1_001051_00.jpg")
        return root

    def duke(self, root: Path) -> Path:
        for folder, names in DUKE.items():
            for name in names:
                self.image(root / folder / name)
        return root

    def synthetic(self, root: Path) -> Path:
        self.market(root)
        (root / "synthetic.json").write_text("{}")
        return root

    def msmt17(self, root: Path, folders: tuple[str, str] = ("train", "test")) -> Path:
        for name, text in MSMT17.items():
            folder = folders[name in ("list_query.txt", "list_gallery.txt")]
            for line in text.splitlines():
                self.image(root / folder / line.split()[0])
            (root / name).write_text(text)
        return root

    def msmt17_v2(self, root: Path) -> Path:
        return self.msmt17(root, ("mask_train_v2", "mask_test_v2"))

    def folder(self, root: Path) -> Path:
        for name in ("train/7/a.jpg", "train/9/b.jpg", "query/12/q.jpg", "gallery/12/g.jpg"):
            self.image(root / name)
        return self.image(root / "gallery/0/d.jpg").parents[2]

    def flat_folder(self, root: Path) -> Path:
        for name in ("ann/1.jpg", "ann/2.jpg", "ben/1.jpg", "ben/2.jpg", "ben/3.jpg"):
            self.image(root / name)
        return root

    def cuhk03(self, root: Path) -> Path:
        """As the release and the new protocol's files are put together."""
        self.cuhk03_mat(root / "cuhk03_release" / "cuhk-03.mat")
        for spelt in ("labeled", "detected"):
            self.cuhk03_config(root / f"cuhk03_new_protocol_config_{spelt}.mat")
        return root

    def cuhk03_np(self, root: Path) -> Path:
        for spelt in ("labeled", "detected"):
            self.duke(root / spelt)
        return root

    def cuhk03_mat(self, path: Path) -> Path:
        """HDF5 as MATLAB 7.3 lays it out: transposed, cells as references, empty cells as sizes."""
        h5py = pytest.importorskip("h5py")
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w", userblock_size=512) as mat:
            store = mat.create_group("#refs#")

            def stored(array: NDArray[Any]) -> Any:
                return store.create_dataset(str(len(store)), data=array.T).ref

            def cell(references: NDArray[Any]) -> NDArray[Any]:
                return references.astype(h5py.ref_dtype)

            for boxes in ("labeled", "detected"):
                pairs = np.empty((len(CUHK03_PERSONS), 1), object)
                for pair, persons in enumerate(CUHK03_PERSONS):
                    images = np.empty((persons, 10), object)
                    for person, place in np.ndindex(persons, 10):
                        there = place in (0, 1, 5)
                        name = f"{boxes}{pair}{person}{place}"
                        image = noise(name, 6, 4) if there else np.zeros(2, np.uint64)
                        images[person, place] = stored(image)
                    pairs[pair, 0] = stored(cell(images))
                mat.create_dataset(boxes, data=cell(pairs).T)
            test_sets = np.empty((2, 1), object)
            test_sets[0, 0] = stored(np.array([[1, 2], [2, 1]], np.float64))
            test_sets[1, 0] = stored(np.array([[1, 3], [1, 1]], np.float64))
            mat.create_dataset("testsets", data=cell(test_sets).T)
        return path

    def cuhk03_config(self, path: Path, **changed: Any) -> Path:
        """Persons 1..5, each with two images of view 1 and one of view 2; 1 to 3 are trained on."""
        scipy_io = pytest.importorskip("scipy.io")
        files = [
            f"{pair}_{person:03d}_{view}_{place:02d}.png"
            for pair, persons in enumerate(CUHK03_PERSONS, 1)
            for person in range(1, persons + 1)
            for view, place in ((1, 1), (1, 2), (2, 6))
        ]
        fields: dict[str, Any] = {
            "filelist": np.array(files, object)[:, None],
            "labels": np.repeat(np.arange(1, 6), 3)[:, None],
            "camId": np.array([int(name.split("_")[2]) for name in files])[:, None],
            "train_idx": np.arange(1, 10)[:, None],
            "query_idx": np.array([[10], [13]]),
            "gallery_idx": np.array([[11], [12], [14], [15]]),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {key: value for key, value in (fields | changed).items() if value is not None}
        scipy_io.savemat(str(path), fields)
        return path

    def cifar100(self, root: Path, protocol: int = 2) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for name, count in (("train", 5), ("test", 3)):
            fields = {
                b"data": cifar_pixels(name, count),
                b"fine_labels": [(7 * i) % 100 for i in range(count)],
                b"coarse_labels": [0] * count,
                b"filenames": [b"a_s_000001.png"] * count,
            }
            (root / name).write_bytes(pickle.dumps(fields, protocol=protocol))
        names = {b"fine_label_names": [f"class{i}".encode() for i in range(100)]}
        (root / "meta").write_bytes(pickle.dumps(names, protocol=protocol))
        return root


def noise(name: str, height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def cifar_pixels(name: str, count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (count, 3072), np.uint8)


@pytest.fixture(scope="session")
def miniatures() -> Miniatures:
    return Miniatures()
