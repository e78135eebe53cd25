"""Small pictures of crops, as text inside a page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Image
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError

HEIGHT = 96
WIDEST = 96
_QUALITY = 70
_READERS = 4
_MISSING: Image = np.full((HEIGHT, HEIGHT // 2, 3), 200, np.uint8)


def thumbnails(
    paths: Sequence[Path], on_progress: Callable[[int], None] | None = None
) -> list[str]:
    """JPEGs of some image files in base64, 96 pixels high; grey where one cannot be read."""
    found = []
    with ThreadPoolExecutor(_READERS) as readers:
        for text in readers.map(_thumbnail, paths):
            found.append(text)
            if on_progress is not None:
                on_progress(1)
    return found


def _thumbnail(path: Path) -> str:
    try:
        image = read_image(path)
    except InputError:
        image = _MISSING
    width = min(WIDEST, max(1, round(HEIGHT * image.shape[1] / image.shape[0])))
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", crops.resize(image, HEIGHT, width), options)
    return base64.b64encode(data.tobytes()).decode()
