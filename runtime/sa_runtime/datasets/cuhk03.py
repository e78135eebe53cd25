"""CUHK03: labelled or detected boxes, new (767/700) or classic (1367/100) protocol.

The images come from ``cuhk-03.mat``, which is unpacked once into ``images_labeled/`` and
``images_detected/`` beside it, or lie there already: ``1_001_1_01.png`` is camera pair, person of
the pair, view, image. The new protocol's split comes from
``cuhk03_new_protocol_config_{labeled,detected}.mat``, the classic ones from ``cuhk-03.mat``.
The new protocol is also read from the CUHK03-NP release, ``{labeled,detected}/`` in the layout of
Market-1501.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from sa_runtime.datasets import cuhk03_mat
from sa_runtime.datasets.base import ReidDataset, Sample, image_files
from sa_runtime.datasets.layout import Layout, require_layout
from sa_runtime.datasets.market import FOLDERS, kept
from sa_runtime.errors import DatasetError, InputError, bad_value

Boxes = Literal["labelled", "detected"]
Protocol = Literal["new", "classic"]
_SPELT = {"labelled": "labeled", "detected": "detected"}
"""The files spell it the American way."""
_MATS = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
_NAME = re.compile(r"(\d+)_(\d+)_([12])_(\d+)\.png")


def _new_protocol(boxes: Boxes) -> Layout:
    spelt = _SPELT[boxes]
    config = f"cuhk03_new_protocol_config_{spelt}.mat"
    release = tuple(f"{spelt}/{folder}" for folder in FOLDERS.values())
    return Layout(
        title=f"CUHK03 ({boxes}, new protocol)",
        forms=(*((mat, config) for mat in _MATS), (f"images_{spelt}", config), release),
        mend=(
            "The config files are in evaluation/data/CUHK03 of "
            "https://github.com/zhunzhong07/person-re-ranking, cuhk-03.mat is in cuhk03_release.zip"
        ),
    )


LABELLED = _new_protocol("labelled")
DETECTED = _new_protocol("detected")
CLASSIC = Layout(title="CUHK03 (classic protocol)", forms=tuple((mat,) for mat in _MATS))


def load_cuhk03(
    root: Path, *, boxes: Boxes = "labelled", protocol: Protocol = "new", split: int = 0
) -> ReidDataset:
    """CUHK03.

    The camera is the view, 0 or 1. In the new protocol a person is the label of the config file;
    in the classic one it is 1000 times the camera pair plus the number in it, and every image of
    the 100 test persons is a query and in the gallery, as others take it: the metric leaves out
    what the query's own camera saw and draws one gallery image for each person.

    Args:
        root: the folder with ``cuhk-03.mat`` (or ``cuhk03_release/cuhk-03.mat``, or the unpacked
            images) and the config files; or with the CUHK03-NP folders.
        boxes: ``labelled`` (drawn by hand) or ``detected``.
        protocol: ``new`` (767 persons to train, 700 to test) or ``classic`` (1367 and 100).
        split: which of the classic protocol's test sets, from 0.

    Raises:
        InputError: an option with a wrong value.
        DatasetError: another layout, or a file that cannot be read.
        MissingPackageError: h5py (for ``cuhk-03.mat``) or scipy (for the config files) is missing.
    """
    for option, value, kind in (("boxes", boxes, Boxes), ("protocol", protocol, Protocol)):
        if value not in get_args(kind):
            raise InputError(f"{option}={value!r}: expected {' or '.join(get_args(kind))}")
    if protocol == "classic":
        return _classic(root, boxes, split)
    if split:
        raise bad_value("split", split, "the new protocol has one split, 0")
    return _new(root, boxes)


def load_labelled(root: Path) -> ReidDataset:
    """CUHK03, labelled boxes, new protocol. Raises as :func:`load_cuhk03`."""
    return load_cuhk03(root)


def load_detected(root: Path) -> ReidDataset:
    """CUHK03, detected boxes, new protocol. Raises as :func:`load_cuhk03`."""
    return load_cuhk03(root, boxes="detected")


def load_labelled_classic(root: Path, *, split: int = 0) -> ReidDataset:
    """CUHK03, labelled boxes, classic protocol. Raises as :func:`load_cuhk03`."""
    return load_cuhk03(root, protocol="classic", split=split)


def load_detected_classic(root: Path, *, split: int = 0) -> ReidDataset:
    """CUHK03, detected boxes, classic protocol. Raises as :func:`load_cuhk03`."""
    return load_cuhk03(root, boxes="detected", protocol="classic", split=split)


def _new(root: Path, boxes: Boxes) -> ReidDataset:
    layout = LABELLED if boxes == "labelled" else DETECTED
    require_layout(root, layout)
    name = f"cuhk03-{boxes}"
    if layout.form(root) == layout.forms[-1]:
        release = {split: kept(root / _SPELT[boxes] / folder) for split, folder in FOLDERS.items()}
        return ReidDataset(name=name, root=root, **release)
    config = root / f"cuhk03_new_protocol_config_{_SPELT[boxes]}.mat"
    protocol = cuhk03_mat.read_new_protocol(config)
    folder = _unpacked(root, boxes)
    present = {path.name for path in image_files(folder)}
    if missing := [file for file in protocol.files if file not in present]:
        raise DatasetError(
            f"{folder}: {len(missing)} of {len(protocol.files)} images of {config.name} are not in "
            f"it, the first {missing[0]}; remove the folder to unpack cuhk-03.mat again"
        )

    def samples(indices: Iterable[int]) -> tuple[Sample, ...]:
        return tuple(
            Sample(folder / file, protocol.persons[i], _parsed(folder / file)[1])
            for i in indices
            if (file := protocol.files[i])
        )

    return ReidDataset(
        name=name,
        root=root,
        train=samples(protocol.train),
        query=samples(protocol.query),
        gallery=samples(protocol.gallery),
    )


def _classic(root: Path, boxes: Boxes, split: int) -> ReidDataset:
    require_layout(root, CLASSIC)
    test_sets = cuhk03_mat.read_test_sets(_mat(root))
    if not 0 <= split < len(test_sets):
        rule = f"{_mat(root)} has the test sets 0 to {len(test_sets) - 1}"
        raise bad_value("split", split, rule)
    tested = {1000 * pair + person for pair, person in test_sets[split]}
    samples = [Sample(path, *_parsed(path)) for path in image_files(_unpacked(root, boxes))]
    test = tuple(sample for sample in samples if sample.person in tested)
    return ReidDataset(
        name=f"cuhk03-{boxes}-classic",
        root=root,
        train=tuple(sample for sample in samples if sample.person not in tested),
        query=test,
        gallery=test,
    )


def _parsed(path: Path) -> tuple[int, int]:
    """Person (1000 * pair + number) and camera (the view, from 0) of an unpacked image."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DatasetError(
            f"{path}: expected a name like 1_001_1_01.png (pair, person, view 1 or 2, image); "
            f"take it out, or remove the folder to unpack cuhk-03.mat again"
        )
    return 1000 * int(match[1]) + int(match[2]), int(match[3]) - 1


def _mat(root: Path) -> Path:
    return next((root / mat for mat in _MATS if (root / mat).is_file()), root / _MATS[0])


def _unpacked(root: Path, boxes: Boxes) -> Path:
    """The folder of images, unpacked where it is not there yet."""
    folder = root / f"images_{_SPELT[boxes]}"
    if not folder.is_dir():
        cuhk03_mat.unpack_images(_mat(root), _SPELT[boxes], folder)
    return folder
