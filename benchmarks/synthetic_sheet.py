"""The pictures of docs/guide/synthetic.md: crops by person and camera, and a frame with its boxes.

Run: ``python benchmarks/synthetic_sheet.py docs/images``.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa_runtime.datasets.synthetic import SyntheticConfig
from sa_runtime.datasets.synthetic.shots import crop
from sa_runtime.datasets.synthetic.video import cast_of, frames

PEOPLE, CROPS, GAP = 5, (1, 2), 3
WHITE = (255, 255, 255)


def sheet(config: SyntheticConfig) -> NDArray[np.uint8]:
    """Rows are people of the test split, columns are cameras; two crops of each."""
    rows = []
    for number in cast_of(config)[:PEOPLE]:
        cells = [
            crop(config, number, index, image) for index in range(config.cameras) for image in CROPS
        ]
        rows.append(np.hstack([cv2.copyMakeBorder(c, *(GAP,) * 4, 0, value=WHITE) for c in cells]))
    return np.asarray(np.vstack(rows), np.uint8)


def frame_with_boxes(config: SyntheticConfig, index: int, at: int) -> NDArray[np.uint8]:
    """Frame ``at`` of camera ``index`` with the ground truth drawn in."""
    frame, people = next(itertools.islice(frames(config, index), at, None))
    for truth in people:
        box = truth.box
        corners = (int(box.left), int(box.top)), (int(box.right) - 1, int(box.bottom) - 1)
        cv2.rectangle(frame, *corners, (60, 220, 60), 1)
        place = (corners[0][0] + 2, corners[0][1] - 4)
        cv2.putText(frame, str(truth.person), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 255, 255))
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    config = SyntheticConfig()
    crops, frame = options.folder / "synthetic.png", options.folder / "synthetic-video.jpg"
    # 256 colours keep the noisy crops small. Pillow dithers only towards a palette it is given.
    full = Image.fromarray(sheet(config)[..., ::-1])
    full.quantize(palette=full.quantize(256, method=Image.Quantize.MAXCOVERAGE)).save(
        crops, optimize=True
    )
    Image.fromarray(frame_with_boxes(config, 0, 30)[..., ::-1]).save(frame, quality=85)
    for path in (crops, frame):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
