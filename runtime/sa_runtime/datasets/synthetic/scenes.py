"""The places the cameras look at: a wall, a floor, and clutter."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from sa_runtime.datasets.synthetic.cameras import Camera, Image, camera
from sa_runtime.datasets.synthetic.config import SyntheticConfig, rng

_WALLS = ((168, 176, 182), (120, 140, 158), (96, 108, 150), (190, 186, 170), (110, 120, 116))
_FLOORS = ((138, 140, 142), (110, 120, 132), (150, 158, 168), (96, 110, 104), (84, 92, 100))


@functools.lru_cache(maxsize=16)
def scene(config: SyntheticConfig, index: int) -> Image:
    """The empty place before camera ``index``: (frame height, frame width, 3) uint8 BGR."""
    eye = camera(config, index)
    draw = rng(config.seed, "scene", index)
    canvas = np.empty((eye.height, eye.width, 3), np.uint8)
    base = round(eye.foot(0.0, eye.far_m + 1.2)[1])
    base = int(np.clip(base, eye.height * 0.15, eye.height * 0.7))
    _wall(canvas[:base], draw, index)
    _floor(canvas, base, eye, draw, index)
    for _ in range(int(draw.integers(4, 8))):
        _thing(canvas, base, draw)
    stains = cv2.resize(
        draw.normal(0, 4, (18, 32)).astype(np.float32),
        (eye.width, eye.height),
        interpolation=cv2.INTER_CUBIC,
    )
    fine = draw.normal(0, 3, (eye.height, eye.width)).astype(np.float32)
    mixed = canvas + (stains + fine)[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _colour(draw: np.random.Generator, low: int = 30, high: int = 225) -> tuple[int, int, int]:
    b, g, r = draw.integers(low, high, 3)
    return int(b), int(g), int(r)


def _wall(wall: Image, draw: np.random.Generator, index: int) -> None:
    height, width = wall.shape[:2]
    tone = np.array(_WALLS[index % len(_WALLS)]) + draw.normal(0, 12, 3)
    ramp = np.linspace(1.12, 0.88, height)[:, None, None]
    wall[:] = np.clip(tone * ramp, 0, 255)
    kind = index % 3
    if kind == 0:
        step = max(6, height // 14)
        for row, y in enumerate(range(0, height, step)):
            cv2.line(wall, (0, y), (width, y), (tone * 0.75).tolist(), 1)
            for x in range((row % 2) * step, width, step * 2):
                cv2.line(wall, (x, y), (x, y + step), (tone * 0.75).tolist(), 1)
    x = int(draw.integers(0, width // 10))
    while x < width:
        span = int(draw.integers(width // 12, width // 5))
        top = int(height * draw.uniform(0.05, 0.35))
        bottom = int(height * draw.uniform(0.6, 1.0))
        pick = draw.random()
        if pick < 0.45:
            cv2.rectangle(wall, (x, top), (x + span, bottom), _colour(draw, 30, 110), -1)
            cv2.rectangle(wall, (x, top), (x + span, bottom), _colour(draw, 120, 220), 2)
            cv2.line(wall, (x + span // 2, top), (x + span // 2, bottom), (200, 200, 200), 1)
            glint = np.array(
                [[x, bottom], [x + span // 3, top], [x + span // 2, top], [x + span // 5, bottom]]
            )
            cv2.fillPoly(wall, [glint], _colour(draw, 110, 170))
        elif pick < 0.65:
            cv2.rectangle(wall, (x, top), (x + span // 2, bottom), _colour(draw), -1)
            for line in range(int(draw.integers(1, 5))):
                y = top + (line + 1) * max(1, (bottom - top) // 6)
                cv2.line(wall, (x + 4, y), (x + span // 2 - 4, y), _colour(draw), 2)
        elif pick < 0.8:
            for _ in range(60):
                centre = (
                    x + int(draw.integers(0, span)),
                    top + int(draw.integers(0, max(1, height - top))),
                )
                green = (40, int(draw.integers(70, 150)), int(draw.integers(40, 90)))
                cv2.circle(wall, centre, max(2, height // 18), green, -1)
        x += span + int(draw.integers(width // 40, width // 10))


def _floor(canvas: Image, base: int, eye: Camera, draw: np.random.Generator, index: int) -> None:
    tone = np.array(_FLOORS[(index * 2 + 1) % len(_FLOORS)]) + draw.normal(0, 10, 3)
    rows = eye.height - base
    canvas[base:] = np.clip(tone * np.linspace(0.86, 1.1, rows)[:, None, None], 0, 255)
    dark = (tone * 0.82).tolist()
    joint = draw.uniform(0.8, 2.0)
    for k in range(1, 30):
        distance = eye.near_m * 0.7 + k * joint
        y = round(eye.foot(0, distance)[1])
        if base < y < eye.height:
            cv2.line(canvas, (0, y), (eye.width, y), dark, 1, cv2.LINE_AA)
    for k in range(-12, 13):
        near, far = eye.foot(k * joint, eye.near_m * 0.7), eye.foot(k * joint, 40.0)
        start, end = (round(near[0]), round(near[1])), (round(far[0]), round(far[1]))
        cut, begin, stop = cv2.clipLine((0, base, eye.width, rows), start, end)
        if cut:
            cv2.line(canvas, begin, stop, dark, 1, cv2.LINE_AA)
    cv2.line(canvas, (0, base), (eye.width, base), (tone * 0.6).tolist(), 3)


def _thing(canvas: Image, base: int, draw: np.random.Generator) -> None:
    """A post, bin, plant or bench that stands at the wall."""
    height, width = canvas.shape[:2]
    x = int(draw.integers(0, width))
    y = base + int(draw.integers(2, max(3, height // 14)))
    size = int(height * draw.uniform(0.08, 0.2))
    colour = _colour(draw, 30, 170)
    kind = int(draw.integers(4))
    if kind == 0:
        cv2.rectangle(canvas, (x, y - size * 3), (x + max(3, size // 9), y), colour, -1)
        cv2.circle(canvas, (x + size // 18, y - size * 3), max(3, size // 5), (210, 220, 225), -1)
    elif kind == 1:
        cv2.rectangle(canvas, (x, y - size), (x + size // 2, y), colour, -1)
        cv2.rectangle(
            canvas, (x - 2, y - size), (x + size // 2 + 2, y - size + size // 6), _colour(draw), -1
        )
    elif kind == 2:
        cv2.rectangle(canvas, (x, y - size // 2), (x + size // 2, y), colour, -1)
        for _ in range(25):
            centre = (
                x + int(draw.integers(-size // 4, size)),
                y - size // 2 - int(draw.integers(0, size)),
            )
            cv2.circle(canvas, centre, max(2, size // 8), (50, int(draw.integers(80, 150)), 60), -1)
    else:
        cv2.rectangle(canvas, (x, y - size // 2), (x + size * 2, y - size // 3), colour, -1)
        for leg in (0, size * 2 - 4):
            cv2.rectangle(canvas, (x + leg, y - size // 2), (x + leg + 4, y), (40, 40, 40), -1)
