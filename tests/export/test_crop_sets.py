"""Crops to calibrate on and to judge artefacts by."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sa_export.crop_set import CropSet, spread
from sa_export.crop_sets import calibration_crops, validation_crops
from sa_runtime.errors import InputError


def test_the_generated_set_has_labels_and_every_query_a_match(crops: CropSet) -> None:
    assert crops.images.shape == (308, 128, 64, 3)
    assert crops.labels is not None
    person, camera = crops.labels.person, crops.labels.camera
    for row in range(crops.queries):
        others = slice(crops.queries, None)
        assert ((person[others] == person[row]) & (camera[others] != camera[row])).any()
    assert crops.source == "generated"


def test_calibration_and_validation_show_other_people(crops: CropSet, calibration: CropSet) -> None:
    seen = {image.tobytes() for image in crops.images}
    assert len(calibration) == 96
    assert not any(image.tobytes() in seen for image in calibration.images)


def test_a_market_layout_is_cut_to_whole_people(synthetic_root: Path) -> None:
    whole = validation_crops(synthetic_root, height=32, width=16)
    some = validation_crops(synthetic_root, height=32, width=16, limit=40)
    assert whole.labels is not None
    assert some.labels is not None
    assert len(some) <= 44
    for person in np.unique(some.labels.person[some.labels.person > 0]):
        assert (some.labels.person == person).sum() == (whole.labels.person == person).sum()
    assert (some.labels.person == 0).any()


def test_a_plain_folder_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for index in range(8):
        folder = tmp_path / "deep" if index % 2 else tmp_path
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 4, 3), index, np.uint8))
    crops = validation_crops(tmp_path, height=16, width=8)
    assert crops.labels is None
    assert (len(crops), crops.queries) == (8, 2)
    assert crops.names[:2] == ("0.png", "2.png")


def test_a_folder_without_enough_crops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 images, expected at least 4 crops of people"):
        validation_crops(tmp_path, height=16, width=8)
    with pytest.raises(InputError, match="no such folder"):
        calibration_crops(tmp_path / "absent", height=16, width=8)


def test_calibration_takes_the_training_images_of_a_data_set(synthetic_root: Path) -> None:
    found = calibration_crops(synthetic_root, height=32, width=16, limit=10)
    trained = [p.name for p in sorted((synthetic_root / "bounding_box_train").iterdir())]
    assert list(found.names) == spread(trained, 10)
