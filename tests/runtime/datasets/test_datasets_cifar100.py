"""CIFAR-100, and pickles that must not run."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.datasets.cifar100 import load_cifar100
from sa_runtime.errors import DatasetError

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_images_and_labels(miniatures: Miniatures, tmp_path: Path, protocol: int) -> None:
    cifar = load_cifar100(miniatures.cifar100(tmp_path, protocol))
    assert cifar.train_images.shape == (5, 32, 32, 3)
    assert cifar.test_images.dtype == np.uint8
    assert cifar.train_labels.tolist() == [0, 7, 14, 21, 28]
    assert cifar.test_labels.tolist() == [0, 7, 14]
    assert (cifar.names[0], len(cifar.names)) == ("class0", 100)
    # Row-major planes, red first: pixel (row 2, column 5) of image 1.
    flat = np.random.default_rng(list(b"train")).integers(0, 256, (5, 3072), np.uint8)[1]
    place = 2 * 32 + 5
    expected = [flat[place], flat[1024 + place], flat[2048 + place]]
    assert cifar.train_images[1, 2, 5].tolist() == expected


def test_file_of_python_2(miniatures: Miniatures, tmp_path: Path) -> None:
    """The published files were written by Python 2 and the NumPy of its time."""
    root = miniatures.cifar100(tmp_path)
    pixels = bytes(range(256)) * 12
    old = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K"
        b"\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T\x00\x0c\x00\x00" + pixels + b"tbU\x0bfine_labels]q\x06K*au."
    )
    (root / "test").write_bytes(old)
    cifar = load_cifar100(root)
    assert cifar.test_labels.tolist() == [42]
    assert cifar.test_images[0, 0, :3].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["SA_TEST_TARGET"],)


def test_code_in_a_pickle_does_not_run(
    miniatures: Miniatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "made"
    monkeypatch.setenv("SA_TEST_TARGET", str(target))
    root = miniatures.cifar100(tmp_path / "cifar")
    (root / "train").write_bytes(pickle.dumps({b"data": Malicious()}))
    text = f"{root / 'train'}: cannot be read as CIFAR-100 (it asks for posix.mkdir, which is not"
    with pytest.raises(DatasetError, match=f"^{re.escape(text)}"):
        load_cifar100(root)
    assert not target.exists()


def test_codecs_other_than_latin1_are_refused(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cifar100(tmp_path)
    (root / "train").write_bytes(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.")
    with pytest.raises(DatasetError, match="asks for the codec 'rot13', which is not allowed"):
        load_cifar100(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]q\x00.", "train: holds a list; expected CIFAR-100's fields"),
        (b"", "train: cannot be read as CIFAR-100 (Ran out of input); unpack cifar-100-python"),
        (pickle.dumps({}), "train: no field data; expected the Python version of CIFAR-100."),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1, 100]}),
            "train: data (2, 3072) uint8 with 2 fine labels; expected (N, 3072) uint8 and N labels",
        ),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1]}),
            "train: data (2, 3072) uint8 with 1 fine labels; expected (N, 3072) uint8 and N",
        ),
    ],
)
def test_other_content(
    miniatures: Miniatures, tmp_path: Path, content: bytes, message: str
) -> None:
    root = miniatures.cifar100(tmp_path)
    (root / "train").write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_cifar100(root)


def test_one_folder_too_high(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cifar100(tmp_path / "data" / "cifar-100-python")
    text = f"{root.parent}: CIFAR-100 (Python version) lies inside of it; pass {root}"
    with pytest.raises(DatasetError, match=f"^{re.escape(text)}$"):
        load_cifar100(root.parent)
