from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError

Pixels = NDArray[np.uint8]


def picture(height: int, width: int) -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (9, 9), 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
def test_images_are_read_whole_under_any_name(tmp_path: Path, suffix: str) -> None:
    image = picture(40, 20)
    encoded = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f"Überwachung 人{suffix}"
    path.write_bytes(encoded)
    read = read_image(path)
    assert read.shape == (40, 20, 3)
    assert read.dtype == np.uint8
    gap = np.abs(read.astype(int) - image)
    assert gap.max() <= (0 if suffix in (".png", ".bmp") else 20)
    for length in (0, 10, len(encoded) // 2, len(encoded) - 10):
        path.write_bytes(encoded[:length])
        with pytest.raises(InputError, match=rf"Überwachung 人\{suffix}: not (a whole|an) image"):
            read_image(path)


def test_grey_transparent_and_deep_images_become_bgr(tmp_path: Path) -> None:
    image = picture(12, 10)
    grey = image[..., 0]
    variants: dict[str, tuple[NDArray[Any], Pixels]] = {
        "grey": (grey, np.dstack([grey] * 3)),
        "alpha": (np.dstack([image, grey]), image),
        "deep": (image.astype(np.uint16) * 257, image),
    }
    for name, (written, expected) in variants.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", written)[1].tobytes())
        np.testing.assert_array_equal(read_image(path), expected, err_msg=name)


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = tmp_path / "turned.jpg"
    PilImage.fromarray(picture(40, 20)).save(path, exif=exif)
    assert read_image(path).shape == (20, 40, 3)


def test_a_thumbnail_does_not_hide_a_cut_jpeg(tmp_path: Path) -> None:
    thumbnail = cv2.imencode(".jpg", picture(16, 8))[1].tobytes()
    whole = cv2.imencode(".jpg", picture(64, 32))[1].tobytes()
    payload = b"Exif\x00\x00" + thumbnail
    segment = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    data = whole[:2] + segment + whole[2:]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (64, 32, 3)
    path.write_bytes(data[:-40])
    with pytest.raises(InputError, match=r"photo\.jpg: not a whole image"):
        read_image(path)


def test_a_missing_image_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)
