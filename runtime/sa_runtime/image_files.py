"""What an image file says before it is decoded: its kind, its size, whether it is whole.

Nothing here needs OpenCV, so that a folder of images is looked through at the speed of reading.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
)
"""Files that are images, whatever the case of their suffix; of an animated one its first frame."""
MAX_PIXELS = 100_000_000
"""Above, an image is not decoded: a file of a megabyte may hold gigabytes of pixels."""

_PNG = b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""Neither a stuffed byte nor a restart."""
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of frames, which hold the size."""
_BETWEEN_SCANS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE}
_ZEROS = bytes(32)


def has_image_suffix(path: Path | str) -> bool:
    """Whether a name ends in one of :data:`IMAGE_SUFFIXES`."""
    return Path(path).name.lower().endswith(IMAGE_SUFFIXES)


def is_image(path: Path | str) -> bool:
    """Whether a file that is found is taken: its name ends like an image and is not hidden.

    macOS leaves hidden files named ``._*.jpg`` that are none.

    >>> is_image("0002_c1s1_000451_03.JPG"), is_image("Thumbs.db"), is_image("a/._a.jpg")
    (True, False, False)
    """
    return not Path(path).name.startswith(".") and has_image_suffix(path)


class FoundImages(NamedTuple):
    """What lies below a folder."""

    paths: list[Path]
    others: int
    """Files of other kinds."""


def images_below(folder: Path) -> FoundImages:
    """Every image below a folder, sorted by path.

    Hidden files and folders are passed over. Linked folders are followed, each once, so that links
    to what lies above them do no harm.
    """
    found, others = [], 0
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        for root, folders, names in os.walk(waiting.pop(0)):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in folders if not name.startswith(".")]
            place = Path(root)
            waiting += sorted(place / name for name in folders if (place / name).is_symlink())
            for name in names:
                path = place / name
                if is_image(name) and path.is_file():
                    found.append(path)
                elif not name.startswith("."):
                    others += 1
    return FoundImages(sorted(found), others)


def kind_of(data: bytes) -> str | None:
    """The format by the first bytes: JPEG, PNG, BMP, WebP, TIFF or GIF.

    >>> kind_of(b"GIF89a"), kind_of(b"hello")
    ('GIF', None)
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return "GIF" if data.startswith((b"GIF87a", b"GIF89a")) else None


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header; ``None`` where it does not say.

    >>> image_size(b"GIF89a" + bytes([64, 0, 48, 0]))
    (64, 48)
    """
    kind = kind_of(data)
    if kind == "JPEG":
        for marker, start, _ in _segments(data):
            if marker in _SIZES:
                return _big(data, start + 5), _big(data, start + 3)
    elif kind == "PNG":
        return _big(data, 16, 4), _big(data, 20, 4)
    elif kind == "BMP":
        if _little(data, 14, 4) == 12:
            return _little(data, 18), _little(data, 20)
        height = int.from_bytes(data[22:26], "little", signed=True)
        return _little(data, 18, 4), abs(height)
    elif kind == "GIF":
        return _little(data, 6), _little(data, 8)
    elif kind == "WebP":
        return _webp_size(data)
    elif kind == "TIFF":
        return _tiff_size(data)
    return None


class JpegState(NamedTuple):
    """What the bytes of a JPEG say about its compressed pixels."""

    whole: bool
    """Whether it has its end mark: OpenCV fills up with noise what is not there."""
    doubtful: bool
    """Whether the decoder must be listened to. Files are damaged by blocks: zeros where nothing was
    copied, or bytes of something else, in which marks stand that have no place there. It may still
    be right: flat pictures have zeros too."""


def jpeg_state(data: bytes) -> JpegState:
    """Walk a JPEG from mark to mark, without decoding it."""
    doubtful = scanned = False
    for marker, start, stop in _segments(data):
        if marker == 0xD9:
            return JpegState(True, doubtful)
        if marker == 0:
            scanned = True
            doubtful |= data.find(_ZEROS, start, stop) >= 0
        elif scanned:
            doubtful |= marker not in _BETWEEN_SCANS
    return JpegState(False, doubtful)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of what a JPEG consists of; marker 0 is compressed pixels.

    Any number of bytes 0xFF may precede a marker; what else lies between is passed over, as
    libjpeg does.
    """
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            yield marker, position, position
            return
        if marker == 0x01:
            continue
        stop = position + max(2, _big(data, position))
        yield marker, position, stop
        position = stop
        if marker == 0xDA:
            after = _MARKER.search(data, position)
            stop = len(data) if after is None else after.start()
            yield 0, position, stop
            position = stop


def _webp_size(data: bytes) -> tuple[int, int] | None:
    form = data[12:16]
    if form == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if form == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 ":
        return _little(data, 26) & 0x3FFF, _little(data, 28) & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Of the first picture; ``None`` for BigTIFF."""
    read = _little if data[0] == 0x49 else _big

    if read(data, 2, 2) != 42:
        return None
    start = read(data, 4, 4)
    found = {}
    for entry in range(start + 2, start + 2 + 12 * read(data, start, 2), 12):
        length = 2 if read(data, entry + 2, 2) == 3 else 4
        found[read(data, entry, 2)] = read(data, entry + 8, length)
    return (found[256], found[257]) if 256 in found and 257 in found else None


def _big(data: bytes, start: int, length: int = 2) -> int:
    return int.from_bytes(data[start : start + length], "big")


def _little(data: bytes, start: int, length: int = 2) -> int:
    return int.from_bytes(data[start : start + length], "little")
