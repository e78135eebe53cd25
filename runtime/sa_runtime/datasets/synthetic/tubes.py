"""Drawing bodies made of textured tubes, from any side.

Body axes: X to the person's left, Y up, Z forward, in shares of the body's height, feet at Y = 0.
A tube is a straight axis with an elliptical cross-section that changes along it; its texture is
wrapped around, so that a print on the chest is hidden from behind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.synthetic import textures

Point = tuple[float, float, float]
Radii = tuple[float, ...]

_STEPS = 64
_KNOTS = np.linspace(0, 1, _STEPS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """How a person is seen.

    Attributes:
        yaw: radians; 0 faces the camera, pi/2 walks to the right of the image, pi walks away.
        pitch: radians the camera looks down.
        phase: radians of the gait cycle.
        light: direction the light comes from, -1 left to 1 right of the image.
    """

    yaw: float
    pitch: float
    phase: float
    light: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sprite:
    """A drawn person without surroundings.

    ``colour`` is (H, W, 3) uint8 BGR, ``alpha`` (H, W) uint8 0 or 255, cut tightly;
    ``foot`` is the point (x, y) in it where the body's axis meets the ground; ``unit`` is the
    body's height in its pixels.
    """

    colour: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    foot: tuple[float, float]
    unit: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tube:
    """One body part.

    Attributes:
        start: upper end of the axis.
        end: lower end of the axis.
        widths: lateral half-axes, evenly spaced along the axis.
        depths: frontal half-axes; empty where the tube is round.
        texture: wrapped around.
        rows: shares of the texture's rows at the two ends.
        caps: whether the ends are round.
        bias: added to the nearness; the nearer part hides the farther one.
        anchor: where the nearness is taken, the middle of the axis when ``None``.
    """

    start: Point
    end: Point
    widths: Radii
    depths: Radii = ()
    texture: textures.Texture
    rows: tuple[float, float] = (0.0, 1.0)
    caps: bool = True
    bias: float = 0.0
    anchor: Point | None = None

    def raised(self, by: float) -> Tube:
        """The same tube, ``by`` higher."""
        (x0, y0, z0), (x1, y1, z1) = self.start, self.end
        return dataclasses.replace(self, start=(x0, y0 + by, z0), end=(x1, y1 + by, z1))


def ball(centre: Point, radius: float, texture: textures.Texture, bias: float) -> Tube:
    """A sphere."""
    x, y, z = centre
    ends = ((x, y + 0.001, z), (x, y - 0.001, z))
    return Tube(start=ends[0], end=ends[1], widths=(radius, radius), texture=texture, bias=bias)


def between(start: Point, end: Point, share: float) -> Point:
    """The point at a share of the way."""
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z


def hung(start: Point, length: float, angle: float) -> Point:
    """The end of a limb of ``length`` that hangs from ``start``, turned forward by ``angle``."""
    x, y, z = start
    return x, y - length * math.cos(angle), z + length * math.sin(angle)


def render(tubes: Iterable[Tube], view: View, *, unit: int) -> Sprite:
    """Draw tubes, the farthest first.

    Args:
        tubes: of one person.
        view: from where.
        unit: pixels of the body's height before foreshortening.
    """
    height, width = round(unit * 1.36), round(unit * 1.1)
    origin = (width / 2, height - unit * 0.14)
    colour = np.zeros((height, width, 3), np.uint8)
    alpha = np.zeros((height, width), np.uint8)
    for tube in sorted(tubes, key=lambda tube: _nearness(tube, view)):
        _paint(colour, alpha, tube, view, origin, unit)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    cut = np.s_[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    foot = (origin[0] - left, origin[1] - top)
    return Sprite(colour=colour[cut], alpha=alpha[cut], foot=foot, unit=unit)


def _project(point: Point, view: View) -> tuple[float, float]:
    """(right, up) of a point in the image."""
    x, y, z = point
    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    near = z * cos - x * sin
    return x * cos + z * sin, y * math.cos(view.pitch) - near * math.sin(view.pitch)


def _nearness(tube: Tube, view: View) -> float:
    x, _, z = tube.anchor or between(tube.start, tube.end, 0.5)
    return z * math.cos(view.yaw) - x * math.sin(view.yaw) + tube.bias


def _paint(
    colour: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    tube: Tube,
    view: View,
    origin: tuple[float, float],
    unit: int,
) -> None:
    right0, up0 = _project(tube.start, view)
    right1, up1 = _project(tube.end, view)
    x0, y0 = origin[0] + right0 * unit, origin[1] - up0 * unit
    x1, y1 = origin[0] + right1 * unit, origin[1] - up1 * unit
    length = math.hypot(x1 - x0, y1 - y0)
    along_x, along_y = (0.0, 1.0) if length < 0.5 else ((x1 - x0) / length, (y1 - y0) / length)
    length = max(length, 0.5)

    # A point of the cross-section at angle t, (wide cos t, deep sin t), lands half * cos(t - turn)
    # to the right of the axis: that gives the outline, and the texture's column of each pixel.
    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    wide, deep = _profile(tube.widths) * unit, _profile(tube.depths or tube.widths) * unit
    half = np.maximum(np.hypot(wide * cos, deep * sin), 0.5).astype(np.float32)
    turn = math.atan2(float(deep.mean()) * sin, float(wide.mean()) * cos)

    reach = float(half.max()) + 1
    left, right = _span(min(x0, x1) - reach, max(x0, x1) + reach, colour.shape[1])
    top, bottom = _span(min(y0, y1) - reach, max(y0, y1) + reach, colour.shape[0])
    dx = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - x0)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    along = dx * np.float32(along_x) + dy * np.float32(along_y)
    across = dx * np.float32(along_y) - dy * np.float32(along_x)
    share = np.clip(along * np.float32(1 / length), 0, 1)
    radius = half[(share * (_STEPS - 1)).astype(np.intp)]
    if tube.caps:
        beyond = np.maximum(np.maximum(-along, along - np.float32(length)), 0)
        inside = across**2 + beyond**2 < radius**2
    else:
        inside = (np.abs(across) < radius) & (along >= 0) & (along <= np.float32(length))

    u = np.clip(across[inside] / radius[inside], -1, 1)
    first, last = tube.rows
    rows = ((first + share[inside] * (last - first)) * (textures.ROWS - 1)).astype(np.intp)
    angle = np.float32(turn) + np.arccos(u)
    columns = (angle * np.float32(textures.COLUMNS / (2 * np.pi))).astype(np.intp)
    texel = tube.texture[rows, columns % textures.COLUMNS]
    shade = 0.66 + 0.30 * np.sqrt(1 - u * u) + np.float32(0.16 * view.light) * u
    colour[top:bottom, left:right][inside] = np.minimum(texel * shade[:, None], 255)
    alpha[top:bottom, left:right][inside] = 255


def _profile(radii: Radii) -> NDArray[np.float64]:
    """Half-axes at :data:`_STEPS` evenly spaced places along the axis."""
    last = len(radii) - 1
    return np.interp(_KNOTS * last, range(last + 1), radii)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    return max(0, math.floor(low)), min(size, math.ceil(high))
