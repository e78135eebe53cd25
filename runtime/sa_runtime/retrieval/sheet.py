"""A white sheet for pictures: text drawn large and shrunk once, images pasted at their own size."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime import crops
from sa_runtime.arrays import Bgr, Image
from sa_runtime.system.locking import owned_path

PAPER: Bgr = (255, 255, 255)
INK: Bgr = (52, 44, 38)
GREY: Bgr = (138, 128, 120)

SUPERSAMPLE = 3
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 21
"""Height of a capital at font scale 1 (OpenCV 4; the outline font of OpenCV 5 comes close)."""
_OUTLINES = hasattr(cv2, "FontFace")
"""Whether OpenCV has its outline fonts (from 5 on): Latin, Greek, Cyrillic, Chinese, Japanese and
Korean among them. The strokes of OpenCV 4 are ASCII."""
_LEAST = 0.75
"""Of the height asked for, which text of a limited width keeps."""
_GAP = "..."


class Sheet:
    """Text and images on white.

    Args:
        height: in pixels.
        width: in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        scaled = (height * SUPERSAMPLE, width * SUPERSAMPLE, 3)
        self.large: NDArray[np.uint8] = np.full(scaled, PAPER, np.uint8)
        self._images: list[tuple[int, int, Image]] = []

    def text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        height: float,
        colour: Bgr = GREY,
        align: float = 0,
        limit: float = np.inf,
    ) -> None:
        """Text on the baseline ``y`` that starts at x (``align`` 0), or ends or is centred there.

        Args:
            text: what to write.
            x: in pixels.
            y: in pixels.
            height: of a capital.
            colour: of the text.
            align: the share of its width that lies left of x.
            limit: largest width; wider text is made smaller, and loses its middle where that
                would be too small to read.
        """
        weight = max(1, round(height * SUPERSAMPLE / 12))
        text, scale, width = _fitted(drawable(text), height, weight, limit * SUPERSAMPLE)
        origin = (round(x * SUPERSAMPLE - width * align), round(y * SUPERSAMPLE))
        cv2.putText(self.large, text, origin, _FONT, scale, colour, weight, cv2.LINE_AA)

    def fill(self, colour: Bgr, *, x: int, y: int, height: int, width: int) -> None:
        """A rectangle whose upper left corner is at (x, y)."""
        box = np.array([x, y, x + width, y + height]) * SUPERSAMPLE
        self.large[box[1] : box[3], box[0] : box[2]] = colour

    def image(self, image: Image, x: int, y: int) -> None:
        """An image whose upper left corner is at (x, y)."""
        self._images.append((x, y, image))

    def finish(self) -> Image:
        """(H, W, 3) uint8 BGR."""
        sheet = crops.resize(self.large, self.height, self.width)
        for x, y, image in self._images:
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
        return sheet


def drawable(text: str, *, outlines: bool = _OUTLINES) -> str:
    """Text in letters that there are: what strokes lack loses its accents, or becomes ``?``.

    >>> drawable("Őry, Zoë", outlines=False), drawable("入口 3", outlines=False)
    ('Ory, Zoe', '?? 3')
    """
    if outlines:
        return text
    apart = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode("ascii")


def _fitted(text: str, height: float, weight: int, limit: float) -> tuple[str, float, int]:
    """Text, font scale and width in pixels, as wide as it may be."""
    scale = height * SUPERSAMPLE / _CAPITAL
    kept = text
    while len(text) > 2 and _width(kept, scale * _LEAST, weight) > limit:
        # As much from the end as from the beginning: a number there tells names apart.
        half = (len(text) - 1) // 2
        text = text[:half] + text[-half:]
        kept = text[:half] + _GAP + text[half:]
    scale *= min(1, limit / max(1, _width(kept, scale, weight)))
    return kept, scale, _width(kept, scale, weight)


def _width(text: str, scale: float, weight: int) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, weight)
    return int(width)


def write_png(picture: Image, out: Path) -> None:
    """Write (H, W, 3) uint8 BGR as PNG, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    data = cv2.imencode(".png", picture)[1]
    with owned_path(out) as temporary:
        temporary.write_bytes(data.tobytes())
