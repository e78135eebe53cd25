"""CIFAR-100, the small classification set of the attention layer's own experiments.

``cifar-100-python/{train,test,meta}`` are pickles. Unpickling runs what a file asks for, so only
what these files need is let through: arrays, and text or numbers.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.layout import Layout, require_layout
from sa_runtime.errors import DatasetError

CLASSES = 100
LAYOUT = Layout(title="CIFAR-100 (Python version)", forms=(("train", "test", "meta"),))
PUBLISHED = {"train": 50_000, "test": 10_000}
"""Images of each split as published, a hundredth of each class."""
_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Cifar100:
    """CIFAR-100.

    Attributes:
        train_images: (N, 32, 32, 3) uint8 RGB.
        train_labels: (N,) int64 fine labels, 0..99.
        test_images: (M, 32, 32, 3) uint8 RGB.
        test_labels: (M,) int64 fine labels, 0..99.
        names: name of each fine label.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Images and classes of both splits beside the published ones, and what differs."""
        splits: dict[str, dict[str, Any]] = {
            split: {
                "images": len(labels),
                "classes": len(np.unique(labels)),
                "published": {"images": PUBLISHED[split], "classes": CLASSES},
            }
            for split, labels in (("train", self.train_labels), ("test", self.test_labels))
        }
        notes = [
            f"{split}: {counts[what]:,} {what}, published are {counts['published'][what]:,}"
            for split, counts in splits.items()
            for what in ("images", "classes")
            if counts[what] != counts["published"][what]
        ]
        return {"usable": True, "splits": splits, "notes": notes}


def is_cifar100(root: Path) -> bool:
    """Whether a folder holds CIFAR-100; the ``train`` of other data sets is a folder."""
    return LAYOUT.fits(root) and (root / "train").is_file()


def load_cifar100(root: Path | str) -> Cifar100:
    """Read the Python version of CIFAR-100.

    Args:
        root: the folder ``cifar-100-python`` with ``train``, ``test`` and ``meta``.

    Raises:
        DatasetError: another layout, or a file with other content.
    """
    root = Path(root)
    require_layout(root, LAYOUT)
    train_images, train_labels = _batch(root / "train")
    test_images, test_labels = _batch(root / "test")
    names = _field(root / "meta", _unpickled(root / "meta"), b"fine_label_names")
    return Cifar100(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        names=tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names),
    )


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    fields = _unpickled(path)
    data = _field(path, fields, b"data")
    labels = np.asarray(_field(path, fields, b"fine_labels"))
    pixels = 3 * _SIDE * _SIDE
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape != (len(labels), pixels)
        or labels.dtype.kind != "i"
        or not ((labels >= 0) & (labels < CLASSES)).all()
    ):
        came = f"{data.shape} {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DatasetError(
            f"{path}: data {came} with {len(labels)} fine labels; expected (N, {pixels}) uint8 and "
            f"N labels 0 to {CLASSES - 1}. Unpack cifar-100-python.tar.gz again"
        )
    planes = data.reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int64)


def _field(path: Path, fields: dict[Any, Any], name: bytes) -> Any:
    """A field by its name, which is bytes where Python 2 wrote the file."""
    for key in (name, name.decode()):
        if key in fields:
            return fields[key]
    raise DatasetError(
        f"{path}: no field {name.decode()}; expected the Python version of CIFAR-100. "
        "Unpack cifar-100-python.tar.gz again"
    )


def _unpickled(path: Path) -> dict[Any, Any]:
    with path.open("rb") as file:
        try:
            fields = _ArrayUnpickler(file, encoding="bytes").load()
        except Exception as exc:  # a damaged pickle can raise anything
            raise DatasetError(
                f"{path}: cannot be read as CIFAR-100 ({exc}); unpack cifar-100-python.tar.gz again"
            ) from exc
    if not isinstance(fields, dict):
        raise DatasetError(f"{path}: holds a {type(fields).__name__}; expected CIFAR-100's fields")
    return fields


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain values; anything else a file asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}, which is not allowed")
    return text.encode("latin1")
