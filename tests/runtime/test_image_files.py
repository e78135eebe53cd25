"""Image files before they are decoded, and what becomes of damaged and oversized ones."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from sa_runtime.datasets.images import image_fault
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError
from sa_runtime.image_files import IMAGE_SUFFIXES, image_size, images_below, jpeg_state
from sa_runtime.items import Counts
from sa_runtime.sources.base import SourceOptions
from sa_runtime.sources.images import ImageSource


def picture(width: int = 320, height: int = 240) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (9, 9), 3), np.uint8)


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, options)[1].tobytes())


def zeroed(data: bytes) -> bytes:
    """A file whose middle was not copied."""
    start, stop = len(data) // 3, len(data) // 2
    return data[:start] + bytes(stop - start) + data[stop:]


@pytest.mark.parametrize("suffix", sorted({*IMAGE_SUFFIXES} - {".jfif"}))
def test_every_kind_says_its_size_and_is_read(tmp_path: Path, suffix: str) -> None:
    if not cv2.haveImageWriter(f"a{suffix}"):
        pytest.skip(f"OpenCV {cv2.__version__} has no {suffix}; 4.12 has")
    data = encoded(suffix, picture(37, 21))
    assert image_size(data) == (37, 21)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert read_image(path).shape == (21, 37, 3)
    assert image_fault(path, decode=True) is None


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_jpeg_with_a_zeroed_middle_is_damaged(
    tmp_path: Path, options: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(zeroed(encoded(".jpg", picture(), *options)))
    with pytest.raises(InputError, match=r"a\.jpg: not a whole image"):
        read_image(path)
    assert image_fault(path, decode=True) == "cannot be decoded"
    assert capfd.readouterr().err == ""


def test_flat_pictures_are_doubtful_and_right(tmp_path: Path) -> None:
    for level in (0, 127, 255):
        flat = np.full((600, 800, 3), level, np.uint8)
        path = tmp_path / "a.jpg"
        path.write_bytes(encoded(".jpg", flat, cv2.IMWRITE_JPEG_OPTIMIZE, 1))
        assert np.abs(read_image(path).astype(int) - level).max() <= 2
    assert jpeg_state(path.read_bytes()).doubtful


def test_fill_bytes_before_marks_are_legal(tmp_path: Path) -> None:
    data = encoded(".jpg", picture())
    scan = data.index(b"\xff\xda")
    filled = data[:2] + b"\xff\xff" + data[2:scan] + b"\xff\xff\xff" + data[scan:-2] + b"\xff" * 9
    path = tmp_path / "a.jpg"
    path.write_bytes(filled + data[-2:])
    np.testing.assert_array_equal(
        read_image(path), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )


def test_a_cut_jpeg_is_damaged_wherever_it_is_cut() -> None:
    for options in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)):
        data = encoded(".jpg", picture(64, 64), *options)
        assert jpeg_state(data).whole
        assert not any(jpeg_state(data[:stop]).whole for stop in range(len(data)))


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png: 16000x16000 pixels, expected at most 100 mi"):
        read_image(path)
    path.write_bytes(encoded(".png", picture(20, 10)))
    with pytest.raises(InputError, match=r"20x10 pixels, expected at most 0\.0001 million"):
        read_image(path, max_pixels=100)
    assert read_image(path, max_pixels=200).shape == (10, 20, 3)


def test_folders_are_searched_through_links_once_and_hidden_files_passed_over(
    tmp_path: Path,
) -> None:
    top, beside = tmp_path / "top", tmp_path / "beside"
    (top / "a").mkdir(parents=True)
    (top / ".thumbnails").mkdir()
    beside.mkdir()
    places = [top / "b.jpg", top / "._b.jpg", top / "a" / "c.TIF", top / ".thumbnails" / "d.png"]
    for place in (*places, beside / "img%d [1] é.gif"):
        place.write_bytes(encoded(".png", picture(8, 8)))
    for name in ("Thumbs.db", "a/notes.txt", "clip.mp4"):
        (top / name).write_bytes(b"x")
    os.symlink(top, top / "a" / "loop", target_is_directory=True)
    os.symlink(beside, top / "z", target_is_directory=True)
    os.symlink(beside, top / "a" / "again", target_is_directory=True)
    found = images_below(top)
    assert found.others == 3
    names = [path.name for path in found.paths]
    assert sorted(names) == ["b.jpg", "c.TIF", "img%d [1] é.gif"]
    source = ImageSource.open(str(top), SourceOptions(strict=True))
    counts = Counts()
    assert len(list(source.items(counts))) == 3
    assert (counts.images, counts.other_files) == (3, 3)
