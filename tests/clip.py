"""A short video that is drawn here, and the boxes of what moves in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

FRAMES = 40
FPS = 10
HEIGHT, WIDTH = 240, 320
TRACKS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A video, its detection file, and what the file holds."""

    video: Path
    detections: Path
    boxes: int
    tracks: int = TRACKS
    fps: int = FPS


def clip_in(folder: Path) -> Clip:
    """The clip that :func:`write_clip` left in a folder."""
    boxes = folder / "clip.det.txt"
    return Clip(
        video=folder / "clip.mp4",
        detections=boxes,
        boxes=len(boxes.read_text().splitlines()),
    )


def write_clip(folder: Path) -> Clip:
    """Nine coloured rectangles walk to and fro; each is missed by the detector now and then."""
    rng = np.random.default_rng(11)
    colours = rng.integers(40, 256, (TRACKS, 3))
    shape = (HEIGHT, WIDTH, 3)
    background = cv2.GaussianBlur(rng.integers(0, 120, shape, dtype=np.uint8), (9, 9), 0)
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT)
    )
    lines = []
    for number in range(1, FRAMES + 1):
        frame = background.copy()
        for track, colour in enumerate(colours):
            left = 20 + 25 * track + 15 * np.sin(0.2 * number + track)
            top = 20.5 + 12 * track
            height = 60 + 4 * track
            box = [round(value) for value in (left, top, left + height / 2, top + height)]
            cv2.rectangle(frame, (box[0], box[1]), (box[2], box[3]), colour.tolist(), -1)
            if (number + track) % 7:
                lines.append(f"{number},{track + 1},{left:.2f},{top:.2f},{height / 2},{height},0.9")
        writer.write(frame)
    writer.release()
    (folder / "clip.det.txt").write_text("\n".join(lines) + "\n")
    return clip_in(folder)
