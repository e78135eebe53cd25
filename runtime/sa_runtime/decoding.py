"""Image files into pixels, whole or not at all.

OpenCV decodes; what it would fill up with grey or noise where a file is damaged is refused here.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sa_runtime.arrays import Image, check_image
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import MAX_PIXELS, image_size, jpeg_state, kind_of

_LISTENING = threading.Lock()


def read_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image file as BGR.

    Grey, transparent and 16-bit files become three channels of 8 bits (transparency is dropped);
    the EXIF orientation is applied, as ``cv2.imread`` does; of an animation the first frame is
    read.

    Args:
        path: a file of any format OpenCV reads; its name may hold any character.
        max_pixels: of the largest image that is decoded.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        MissingFileError: no such file.
        InputError: one that cannot be decoded to its end, or that is too large.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as exc:
        kind = MissingFileError if isinstance(exc, FileNotFoundError) else InputError
        raise kind(
            f"{path}: cannot be read ({exc.strerror or exc}); expected an image file", path=path
        ) from exc
    return image_of(data, str(path), max_pixels=max_pixels)


def image_of(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The pixels of an image file that is read, as :func:`read_image` gives them.

    Args:
        data: the whole file.
        name: what messages call it.
        max_pixels: of the largest image that is decoded.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        InputError: one that cannot be decoded to its end, or that is too large.
    """
    size = image_size(data)
    if size is not None and size[0] * size[1] > max_pixels:
        raise InputError(
            f"{name}: {size[0]}x{size[1]} pixels, expected at most {max_pixels / 1e6:g} million "
            "(`max_pixels`); it is not decoded: scale it down or cut people from it first",
            path=name,
        )
    try:
        image = decode_image(data)
    except cv2.error as exc:
        raise InputError(
            f"{name}: not an image that OpenCV can decode ({exc.err})", path=name
        ) from exc
    if image is None:
        raise InputError(
            f"{name}: not a whole image ({len(data)} bytes); expected JPEG, PNG, BMP, WebP, TIFF "
            "or GIF, copy the file again or leave it out",
            path=name,
        )
    return check_image(image, name)


def decode_image(data: bytes) -> Image | None:
    """The pixels of an image file, or ``None`` where it is damaged.

    Args:
        data: the whole file.

    Raises:
        cv2.error: OpenCV refuses it.
    """
    listen = False
    if kind_of(data) == "JPEG":
        whole, listen = jpeg_state(data)
        if not whole:
            return None
    if not data:
        return None
    buffer = np.frombuffer(data, np.uint8)
    if listen:
        image, told = _heard(lambda: cv2.imdecode(buffer, cv2.IMREAD_COLOR))
        if told:
            return None
    else:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _heard(decode: Callable[[], Any]) -> tuple[Any, bool]:
    """What a decoder returns, and whether libjpeg complained meanwhile.

    It complains on the process's stderr and fills the rest with grey. What others print in these
    milliseconds is passed on.
    """
    with _LISTENING, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # no stderr to listen to
            return decode(), False
        try:
            os.dup2(file.fileno(), 2)
            result = decode()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        lines = file.read().splitlines(keepends=True)
    told = [line for line in lines if b"JPEG" in line]
    if others := b"".join(line for line in lines if b"JPEG" not in line):
        os.write(2, others)
    return result, bool(told)
