"""Putting people into a camera's frame, and cutting crops out of it as a detector would."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.synthetic.body import draw
from sa_runtime.datasets.synthetic.cameras import Camera, Exposure, Image, camera, develop
from sa_runtime.datasets.synthetic.config import MAX_IDENTITIES, SyntheticConfig, rng
from sa_runtime.datasets.synthetic.people import Person, person
from sa_runtime.datasets.synthetic.scenes import scene
from sa_runtime.datasets.synthetic.tubes import Sprite, View

OVERSAMPLING = 1.6
"""People are drawn this much larger than they appear, and shrunk."""
PASSERS = 60
"""Strangers who walk through the crops of others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a person is on a camera's ground and how they stand.

    ``heading`` is the direction walked, in radians as :class:`tubes.View` counts yaw for a person
    on the camera's axis; ``phase`` is that of the gait.
    """

    x_m: float
    distance_m: float
    heading: float
    phase: float


@dataclasses.dataclass(frozen=True)
class Box:
    """Edges in pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def clipped(self, width: int, height: int) -> Box:
        """The part inside a frame of ``width`` x ``height``."""
        return Box(
            min(max(self.left, 0), width),
            min(max(self.top, 0), height),
            min(max(self.right, 0), width),
            min(max(self.bottom, 0), height),
        )


@dataclasses.dataclass(frozen=True)
class Placed:
    """A person's layer: colour and coverage (0 to 1) with the frame's pixel of its upper left."""

    colour: Image
    alpha: NDArray[np.float32]
    left: int
    top: int

    @property
    def box(self) -> Box:
        """The tight box in the frame."""
        height, width = self.alpha.shape
        return Box(self.left, self.top, self.left + width, self.top + height)


def place(who: Person, pose: Pose, eye: Camera) -> Placed:
    """Draw a person where they stand in a camera's frame."""
    yaw = pose.heading + math.atan2(pose.x_m, pose.distance_m)
    pitch = eye.pitch(pose.distance_m)
    view = View(yaw=yaw, pitch=pitch, phase=pose.phase, light=eye.light)
    pixels = who.height_m * eye.scale(pose.distance_m)
    sprite = draw(who, view, unit=round(pixels * OVERSAMPLING))
    shrink = pixels / sprite.unit
    x, y = eye.foot(pose.x_m, pose.distance_m)
    return _shrunk(sprite, shrink, x, y)


def _shrunk(sprite: Sprite, scale: float, x: float, y: float) -> Placed:
    height, width = sprite.alpha.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    alpha = cv2.resize(sprite.alpha, size, interpolation=filter_).astype(np.float32) / np.float32(
        255
    )
    # The sprite is black where it is empty: its shrunk colours are already weighted by coverage.
    colour = np.asarray(cv2.resize(sprite.colour, size, interpolation=filter_), np.uint8)
    return Placed(
        colour, alpha, round(x - sprite.foot[0] * scale), round(y - sprite.foot[1] * scale)
    )


def shadow(canvas: Image, pose: Pose, eye: Camera, origin: tuple[int, int] = (0, 0)) -> None:
    """Darken the ground around a person's feet; ``origin`` is the frame's pixel of the canvas."""
    x, y = eye.foot(pose.x_m, pose.distance_m)
    wide = eye.scale(pose.distance_m) * 0.42
    flat = wide * max(0.12, math.sin(eye.pitch(pose.distance_m)))
    x, y = x - origin[0] - eye.light * wide * 0.5, y - origin[1]
    left, right = max(0, math.floor(x - wide)), min(canvas.shape[1], math.ceil(x + wide))
    top, bottom = max(0, math.floor(y - flat)), min(canvas.shape[0], math.ceil(y + flat))
    if left >= right or top >= bottom:
        return
    dx = (np.arange(left, right, dtype=np.float32) - np.float32(x)) / np.float32(wide)
    dy = (np.arange(top, bottom, dtype=np.float32) - np.float32(y)) / np.float32(flat)
    dark = 1 - 0.55 * np.maximum(1 - dx[None, :] ** 2 - dy[:, None] ** 2, 0)
    region = canvas[top:bottom, left:right]
    region[:] = (region * dark[..., None]).astype(np.uint8)


def blend(canvas: Image, layer: Placed, origin: tuple[int, int] = (0, 0)) -> None:
    """Lay a person over a canvas whose upper left is the frame's pixel ``origin``."""
    left, top = layer.left - origin[0], layer.top - origin[1]
    height, width = layer.alpha.shape
    x0, x1 = max(0, left), min(canvas.shape[1], left + width)
    y0, y1 = max(0, top), min(canvas.shape[0], top + height)
    if x0 >= x1 or y0 >= y1:
        return
    inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    rest = region * (1 - layer.alpha[inner])[..., None]
    region[:] = np.minimum(rest + layer.colour[inner], 255).astype(np.uint8)


def heading(eye: Camera, draw_: np.random.Generator) -> float:
    """A direction people walk before a camera."""
    back = math.pi if draw_.random() < eye.backward else 0.0
    return eye.path + back + float(draw_.normal(0, 0.3))


def crop(config: SyntheticConfig, number: int, index: int, image: int) -> Image:
    """Image ``image`` of person ``number`` under camera ``index``, as a detector cut it.

    Returns:
        (image height, image width, 3) uint8 BGR.
    """
    draw_ = rng(config.seed, "image", number, index, image)
    sequence = rng(config.seed, "sequence", number, index, image * 2 // config.images_per_camera)
    eye = camera(config, index)
    facing = heading(eye, sequence) + float(draw_.normal(0, 0.12))
    return _shot(config, person(config.seed, number), index, facing, draw_, misses=1.0)


def junk(config: SyntheticConfig, number: int, index: int, which: int) -> Image:
    """A crop of person ``number`` that misses most of them."""
    draw_ = rng(config.seed, "junk", which)
    eye = camera(config, index)
    facing = heading(eye, draw_)
    return _shot(config, person(config.seed, number), index, facing, draw_, misses=7.0)


def distractor(config: SyntheticConfig, index: int, which: int) -> Image:
    """A crop of nobody in the data set: a stranger, part of one, or background."""
    draw_ = rng(config.seed, "distractor", which)
    eye = camera(config, index)
    stranger = person(config.seed, MAX_IDENTITIES + PASSERS + 1 + which)
    kind = draw_.random()
    misses = 1.0 if kind < 0.4 else 6.0
    facing = heading(eye, draw_)
    return _shot(config, None if kind > 0.75 else stranger, index, facing, draw_, misses=misses)


def _shot(
    config: SyntheticConfig,
    who: Person | None,
    index: int,
    facing: float,
    draw_: np.random.Generator,
    *,
    misses: float,
) -> Image:
    eye = camera(config, index)
    distance = float(draw_.uniform(eye.near_m, eye.far_m))
    reach = eye.half_width_m(distance) * 0.8
    pose = Pose(
        x_m=float(draw_.uniform(-reach, reach)),
        distance_m=distance,
        heading=facing,
        phase=float(draw_.uniform(0, 2 * math.pi)),
    )
    body = place(who or person(config.seed, 0), pose, eye)
    box = _detected(body.box, draw_, misses)
    left, top = math.floor(box.left) - 4, math.floor(box.top) - 4
    right, bottom = math.ceil(box.right) + 4, math.ceil(box.bottom) + 4
    canvas = _window(scene(config, index), left, top, right, bottom)
    others = _passers(config, eye, pose, draw_)
    layers = [*others, *([] if who is None else [(pose, body)])]
    for stands, _ in layers:
        shadow(canvas, stands, eye, (left, top))
    for _, layer in sorted(layers, key=lambda item: -item[0].distance_m):
        blend(canvas, layer, (left, top))
    if draw_.random() < 0.07:
        _obstacle(canvas, draw_)
    seen = develop(canvas, eye, Exposure.drawn(draw_), draw_)
    return _cut(seen, box, (left, top), config)


def _passers(
    config: SyntheticConfig, eye: Camera, pose: Pose, draw_: np.random.Generator
) -> list[tuple[Pose, Placed]]:
    """Sometimes somebody else walks by, half in front or behind."""
    if draw_.random() > 0.16:
        return []
    aside = float(draw_.choice([-1, 1]) * draw_.uniform(0.36, 0.7))
    other = Pose(
        x_m=pose.x_m + aside,
        distance_m=pose.distance_m + float(draw_.uniform(-0.5, 1.5)),
        heading=heading(eye, draw_),
        phase=float(draw_.uniform(0, 2 * math.pi)),
    )
    number = MAX_IDENTITIES + 1 + int(draw_.integers(PASSERS))
    return [(other, place(person(config.seed, number), other, eye))]


def _detected(box: Box, draw_: np.random.Generator, misses: float) -> Box:
    """A tight box as a detector would give it: shifted, scaled, now and then cut short."""
    aspect = 0.44
    width = max(box.width, box.height * aspect * float(draw_.uniform(0.8, 1.0)))
    width, height = (
        width * float(draw_.uniform(0.95, 1.15)),
        box.height * float(draw_.uniform(0.97, 1.12)),
    )
    x = (box.left + box.right) / 2 + box.width * 0.06 * misses * float(draw_.normal())
    y = (box.top + box.bottom) / 2 + box.height * 0.025 * misses * float(draw_.normal())
    bottom = y + height / 2
    if draw_.random() < 0.08:
        bottom -= height * float(draw_.uniform(0.12, 0.3))
    return Box(x - width / 2, y - height / 2, x + width / 2, bottom)


def _window(frame: Image, left: int, top: int, right: int, bottom: int) -> Image:
    """A piece of a frame, mirrored where it reaches over the edge."""
    height, width = frame.shape[:2]
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    rows = np.abs(rows - 2 * np.maximum(rows - (height - 1), 0))
    columns = np.abs(columns - 2 * np.maximum(columns - (width - 1), 0))
    return np.ascontiguousarray(frame[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))])


def _obstacle(canvas: Image, draw_: np.random.Generator) -> None:
    """A post or a low wall between camera and person."""
    height, width = canvas.shape[:2]
    tone = draw_.integers(40, 190, 3)
    if draw_.random() < 0.5:
        left = int(width * draw_.uniform(0.0, 0.9))
        canvas[:, left : left + max(2, round(width * draw_.uniform(0.06, 0.16)))] = tone
    else:
        canvas[round(height * draw_.uniform(0.62, 0.85)) :] = tone


def _cut(seen: Image, box: Box, origin: tuple[int, int], config: SyntheticConfig) -> Image:
    size = (config.image_width, config.image_height)
    rows = slice(round(box.top) - origin[1], round(box.bottom) - origin[1])
    columns = slice(round(box.left) - origin[0], round(box.right) - origin[0])
    piece = seen[rows, columns]
    shrinks = piece.shape[0] > size[1]
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(piece, size, interpolation=filter_), np.uint8)
