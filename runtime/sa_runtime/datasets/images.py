"""Whether an image file is whole, without decoding it, or by decoding it."""

from __future__ import annotations

import os
from pathlib import Path

from sa_runtime.image_files import kind_of

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_TAIL = 4096
"""Bytes at the end in which the end mark must lie; some writers pad their files."""


def image_fault(path: Path, *, decode: bool = False) -> str | None:
    """What is wrong with an image file, or None.

    Args:
        path: the file.
        decode: decode it too.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            file.seek(0)
            data = file.read() if decode else b""
    except OSError as exc:
        return f"cannot be opened ({exc.strerror})"
    if not size:
        return "empty file"
    if head.startswith(_JPEG_START):
        end = _JPEG_END
    elif head.startswith(_PNG_START):
        end = _PNG_END
    elif kind_of(head) is not None:
        end = b""
    else:
        return "neither JPEG, PNG, BMP, WebP, TIFF nor GIF"
    if end not in tail:
        return "cut off"
    return "cannot be decoded" if decode and not _decodes(data) else None


def _decodes(data: bytes) -> bool:
    import cv2

    from sa_runtime.decoding import decode_image

    try:
        return decode_image(data) is not None
    except cv2.error:
        return False
