"""A walking person as an upright stack of textured tubes, drawn from any side.

Body axes: X to the person's left, Y up, Z forward, in shares of the body's height, feet at Y = 0.
A tube is a straight axis with an elliptical cross-section that changes along it; its texture is
wrapped around, so that a print on the chest is hidden from behind.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.synthetic import textures
from sa_runtime.datasets.synthetic.people import Person

Point = tuple[float, float, float]
_STEPS = 64


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
    unit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tube:
    """One body part: ``widths`` (lateral) and ``depths`` (frontal) are half-axes along the axis."""

    start: Point
    end: Point
    widths: tuple[float, ...]
    depths: tuple[float, ...]
    texture: textures.Texture
    bias: float = 0.0
    caps: bool = True
    rows: tuple[float, float] = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Wardrobe:
    """The textures of one person."""

    upper: textures.Texture
    sleeve: textures.Texture
    legs: tuple[textures.Texture, textures.Texture]
    skirt: textures.Texture
    head: textures.Texture


@functools.lru_cache(maxsize=64)
def wardrobe(person: Person) -> Wardrobe:
    """The textures of a person, kept for the next view."""
    return Wardrobe(
        textures.upper(person),
        textures.sleeve(person),
        (textures.leg(person, 1), textures.leg(person, -1)),
        textures.skirt(person),
        textures.head(person),
    )


def draw(person: Person, view: View, *, height: int = 288) -> Sprite:
    """Draw a person.

    Args:
        person: who.
        view: from where, and in which phase of the gait.
        height: pixels of the body's height before foreshortening.
    """
    canvas_height, canvas_width = round(height * 1.36), round(height * 1.1)
    origin = (canvas_width / 2, canvas_height - height * 0.14)
    colour = np.zeros((canvas_height, canvas_width, 3), np.uint8)
    alpha = np.zeros((canvas_height, canvas_width), np.uint8)
    for tube in sorted(body(person, view.phase), key=lambda tube: _nearness(tube, view)):
        _paint(colour, alpha, tube, view, origin, height)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    cut = np.s_[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    return Sprite(
        colour=colour[cut],
        alpha=alpha[cut],
        foot=(origin[0] - left, origin[1] - top),
        unit=height,
    )


def _project(point: Point, view: View) -> tuple[float, float, float]:
    """(right, up, towards the viewer)."""
    x, y, z = point
    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    right, near = x * cos + z * sin, z * cos - x * sin
    tilt_cos, tilt_sin = math.cos(view.pitch), math.sin(view.pitch)
    return right, y * tilt_cos - near * tilt_sin, near * tilt_cos + y * tilt_sin


def _nearness(tube: Tube, view: View) -> float:
    middle = tuple((a + b) / 2 for a, b in zip(tube.start, tube.end, strict=True))
    flat = dataclasses.replace(view, pitch=0.0)
    return _project((middle[0], middle[1], middle[2]), flat)[2] + tube.bias


def _paint(
    colour: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    tube: Tube,
    view: View,
    origin: tuple[float, float],
    unit: int,
) -> None:
    right0, up0, _ = _project(tube.start, view)
    right1, up1, _ = _project(tube.end, view)
    x0, y0 = origin[0] + right0 * unit, origin[1] - up0 * unit
    x1, y1 = origin[0] + right1 * unit, origin[1] - up1 * unit
    length = math.hypot(x1 - x0, y1 - y0)
    along_x, along_y = (0.0, 1.0) if length < 0.5 else ((x1 - x0) / length, (y1 - y0) / length)
    length = max(length, 0.5)

    cos, sin = math.cos(view.yaw), math.sin(view.yaw)
    knots = np.linspace(0, 1, _STEPS)
    wide = np.interp(knots, np.linspace(0, 1, len(tube.widths)), tube.widths) * unit
    deep = np.interp(knots, np.linspace(0, 1, len(tube.depths)), tube.depths) * unit
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
    if not inside.any():
        return

    u = across[inside] / radius[inside]
    first, last = tube.rows
    rows = ((first + share[inside] * (last - first)) * (textures.ROWS - 1)).astype(np.intp)
    angle = np.float32(turn) + np.arccos(np.clip(u, -1, 1))
    columns = (angle * np.float32(textures.COLUMNS / (2 * np.pi))).astype(np.intp)
    texel = tube.texture[rows, columns % textures.COLUMNS]
    facing = np.sqrt(np.maximum(1 - u * u, 0))
    shade = 0.66 + 0.30 * facing + np.float32(0.16 * view.light) * u
    colour[top:bottom, left:right][inside] = np.clip(texel * shade[:, None], 0, 255)
    alpha[top:bottom, left:right][inside] = 255


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    return max(0, math.floor(low)), min(size, math.ceil(high))


def body(person: Person, phase: float) -> list[Tube]:
    """Every tube of a person at one phase of the gait."""
    clothes = wardrobe(person)
    hip_y = person.leg
    legs: list[Tube] = []
    lowest = 1.0
    for side, texture in ((1, clothes.legs[0]), (-1, clothes.legs[1])):
        tubes, low = _leg(person, side, phase if side == 1 else phase + math.pi, texture)
        legs += tubes
        lowest = min(lowest, low)
    tubes = [*legs, *_trunk(person, clothes, phase), *_head(person, clothes)]
    for side in (1, -1):
        tubes += _arm(person, side, phase if side == -1 else phase + math.pi, clothes, hip_y)
    tubes += _bag(person)
    return [_lifted(tube, -lowest) for tube in tubes]


def _lifted(tube: Tube, by: float) -> Tube:
    (x0, y0, z0), (x1, y1, z1) = tube.start, tube.end
    return dataclasses.replace(tube, start=(x0, y0 + by, z0), end=(x1, y1 + by, z1))


def _swing(start: Point, length: float, angle: float) -> Point:
    """The end of a limb of ``length`` that hangs from ``start``, turned forward by ``angle``."""
    x, y, z = start
    return x, y - length * math.cos(angle), z + length * math.sin(angle)


def _leg(
    person: Person, side: int, phase: float, texture: textures.Texture
) -> tuple[list[Tube], float]:
    g = person.girth
    hip_angle = math.radians(27) * person.gait * math.sin(phase)
    flexion = math.radians(6 + 46 * max(0.0, math.cos(phase)) * person.gait)
    hip = (side * 0.047 * math.sqrt(g), person.leg, 0.0)
    knee = _swing(hip, person.leg * 0.49, hip_angle)
    ankle = _swing(knee, person.leg * 0.43, hip_angle - flexion)
    skin = textures.plain(person.skin)
    bare = person.upper == "dress" or person.lower in ("shorts", "skirt")
    covered = person.lower in ("trousers", "wide") and person.upper != "dress"
    hem = 0.05 if person.lower == "wide" else 0.031
    thigh = (0.06 * g, 0.054 * g, 0.043 * g)
    shin = (0.041 * g, 0.038 * g, hem) if covered else (0.035 * g, 0.036 * g, 0.023)
    upper_texture = skin if bare and person.lower != "shorts" else texture
    if person.lower == "shorts" and person.upper != "dress":
        thigh = (0.062 * g, 0.062 * g, 0.056 * g)
    toe = _swing(ankle, 0.105, math.pi / 2 + 0.12 + 0.5 * min(0.0, hip_angle - flexion))
    heel = (ankle[0], ankle[1] - 0.012, ankle[2] - 0.016)
    shoe = textures.plain(person.shoe)
    socks = skin if covered else textures.plain(person.socks)
    boot_top = 0.45 if person.boots and not covered else 0.86
    top = tuple(a + boot_top * (b - a) for a, b in zip(knee, ankle, strict=True))
    tubes = [
        Tube(
            start=hip,
            end=knee,
            widths=thigh,
            depths=thigh,
            texture=upper_texture,
            rows=(0, 0.5),
            bias=-0.5,
        ),
        Tube(
            start=knee,
            end=ankle,
            widths=shin,
            depths=shin,
            texture=texture if covered else skin,
            rows=(0.5, 1.0),
            bias=-0.502,
        ),
        Tube(
            start=heel,
            end=toe,
            widths=(0.03, 0.033, 0.024),
            depths=(0.026, 0.02),
            texture=shoe,
            bias=-0.5,
        ),
    ]
    if not covered:
        width = (0.038, 0.036) if person.boots else (0.026, 0.026)
        material = shoe if person.boots else socks
        tubes.append(
            Tube(
                start=(top[0], top[1], top[2]),
                end=ankle,
                widths=width,
                depths=width,
                texture=material,
                bias=-0.499,
            )
        )
    return tubes, min(ankle[1], toe[1], heel[1]) - 0.026


def _trunk(person: Person, clothes: Wardrobe, phase: float) -> list[Tube]:
    g, s = person.girth, person.shoulders
    bulky = 1.12 if person.upper in ("coat", "vest") else 1.0
    shoulder_y, hip_y = 0.825, person.leg - 0.03
    widths = (0.035, 0.1 * s, 0.118 * s, 0.112 * s, 0.098 * g, 0.092 * g, 0.1 * g, 0.1 * g)
    depths = (0.035, 0.052, 0.062 * g, 0.066 * g, 0.064 * g, 0.062 * g, 0.064 * g, 0.062 * g)
    tubes = [
        Tube(
            start=(0, shoulder_y + 0.02, 0.0),
            end=(0, hip_y, 0.0),
            widths=tuple(w * bulky for w in widths),
            depths=tuple(d * bulky for d in depths),
            texture=clothes.upper,
            bias=0.03,
            caps=False,
        ),
        Tube(
            start=(0, 0.885, 0.012),
            end=(0, 0.82, 0),
            widths=(0.03, 0.034),
            depths=(0.03, 0.034),
            texture=textures.plain(person.scarf or person.skin),
            bias=0.031 if person.scarf is None else 0.06,
        ),
    ]
    if person.scarf is not None:
        tubes.append(
            Tube(
                start=(0, 0.856, 0.006),
                end=(0, 0.822, 0.004),
                widths=(0.05, 0.06),
                depths=(0.05, 0.055),
                texture=textures.plain(person.scarf),
                bias=0.062,
            )
        )
    skirted = person.upper in ("coat", "dress") or person.lower in ("skirt", "long-skirt")
    if skirted:
        long = person.lower == "long-skirt" and person.upper != "coat"
        hem_y = 0.12 if long else person.leg * (0.48 if person.upper == "coat" else 0.6)
        spread = 0.03 + 0.055 * abs(math.sin(phase)) * person.gait
        flare = 0.1 * g * (1.25 if person.upper == "coat" else 1.4)
        tubes.append(
            Tube(
                start=(0, hip_y + 0.05, 0),
                end=(0, hem_y, 0),
                widths=(0.098 * g * bulky, 0.112 * g, flare),
                depths=(0.064 * g * bulky, 0.08 * g, 0.06 * g + spread),
                texture=clothes.skirt,
                bias=0.028,
                caps=False,
            )
        )
    else:
        tubes.append(
            Tube(
                start=(0, hip_y + 0.03, 0),
                end=(0, hip_y - 0.03, 0),
                widths=(0.096 * g, 0.1 * g),
                depths=(0.06 * g, 0.062 * g),
                texture=clothes.legs[0],
                rows=(0.0, 0.1),
                bias=0.02,
            )
        )
    return tubes


def _arm(person: Person, side: int, phase: float, clothes: Wardrobe, hip_y: float) -> list[Tube]:
    carrying = person.bag == "tote" and side == person.side
    angle = math.radians(24) * person.gait * math.sin(phase) * (0.35 if carrying else 1.0)
    elbow_angle = angle + math.radians(12 if carrying else 22 + 10 * math.sin(phase))
    shoulder = (side * 0.105 * person.shoulders, 0.783, 0.0)
    elbow = _swing((shoulder[0] + side * 0.022 * person.girth, 0.783, 0.0), 0.16, angle)
    hand = _swing(elbow, 0.15, elbow_angle)
    thick = 0.9 + 0.25 * (person.girth - 1) + (0.12 if person.upper == "coat" else 0.0)
    upper = (0.036 * thick, 0.033 * thick, 0.029 * thick)
    fore = (0.028 * thick, 0.026 * thick, 0.021 * thick)
    skin = textures.plain(person.skin)
    long_sleeves = person.upper in ("sweater", "open-jacket", "coat")
    short_sleeves = person.upper in ("t-shirt", "dress")
    tubes = [
        Tube(
            start=shoulder,
            end=elbow,
            widths=upper,
            depths=upper,
            texture=clothes.sleeve if long_sleeves else skin,
            rows=(0.0, 0.5),
            bias=0.025,
        ),
        Tube(
            start=elbow,
            end=hand,
            widths=fore,
            depths=fore,
            texture=clothes.sleeve if long_sleeves else skin,
            rows=(0.5, 1.0),
            bias=0.03,
        ),
        Tube(
            start=hand,
            end=_swing(hand, 0.03, elbow_angle),
            widths=(0.02, 0.016),
            depths=(0.02, 0.016),
            texture=skin,
            bias=0.03,
        ),
    ]
    if short_sleeves:
        middle = tuple(a + 0.55 * (b - a) for a, b in zip(shoulder, elbow, strict=True))
        wide = (0.04 * thick, 0.041 * thick)
        tubes.append(
            Tube(
                start=shoulder,
                end=(middle[0], middle[1], middle[2]),
                widths=wide,
                depths=wide,
                texture=clothes.sleeve,
                bias=0.027,
            )
        )
    if carrying:
        x, y, z = hand
        tubes.append(
            Tube(
                start=(x, y - 0.04, z),
                end=(x, y - 0.2, z),
                widths=(0.024, 0.034, 0.034),
                depths=(0.07, 0.085, 0.08),
                texture=_panel(person),
                bias=0.035,
                caps=False,
            )
        )
    return tubes


def _head(person: Person, clothes: Wardrobe) -> list[Tube]:
    hair = textures.plain(person.hair)
    big = 1.28 if person.haircut == "afro" else 1.0
    oval = (0.02, 0.044, 0.056, 0.06, 0.06, 0.058, 0.052, 0.042, 0.022)
    long_oval = tuple(r * 1.16 for r in oval)
    tubes = [
        Tube(
            start=(0, 1.0, 0.012),
            end=(0, 0.862, 0.012),
            widths=oval,
            depths=long_oval,
            texture=clothes.head,
            bias=0.07,
            caps=False,
        )
    ]
    if person.haircut == "afro" and person.hat in ("none", "cap"):
        tubes.append(_ball((0, 0.962, -0.022), 0.062 * big, hair, 0.06))
    if person.haircut in ("long", "bob"):
        low = 0.74 if person.haircut == "long" else 0.845
        tubes.append(
            Tube(
                start=(0, 0.95, -0.034),
                end=(0, low, -0.05),
                widths=(0.058, 0.07, 0.062),
                depths=(0.04, 0.042, 0.024),
                texture=hair,
                bias=0.058,
            )
        )
    if person.haircut == "ponytail":
        tubes.append(
            Tube(
                start=(0, 0.955, -0.07),
                end=(0, 0.8, -0.1),
                widths=(0.018, 0.028, 0.02, 0.01),
                depths=(0.018, 0.028, 0.02, 0.01),
                texture=hair,
                bias=0.065,
            )
        )
    if person.haircut == "bun" and person.hat in ("none", "cap"):
        tubes.append(_ball((0, 1.0, -0.035), 0.032, hair, 0.055))
    return tubes + _hat(person)


def _hat(person: Person) -> list[Tube]:
    if person.hat == "none":
        return []
    texture = textures.plain(person.hat_colour)
    if person.hat == "hood":
        cloth = textures.plain(person.upper_colours[0])
        rim = (0.03, 0.056, 0.07, 0.072, 0.072, 0.066)
        return [
            Tube(
                start=(0, 1.015, -0.02),
                end=(0, 0.85, -0.03),
                widths=rim,
                depths=rim,
                texture=cloth,
                bias=0.062,
            )
        ]
    crown = (0.024, 0.05, 0.062, 0.066) if person.hat != "beanie" else (0.03, 0.056, 0.067, 0.07)
    deep = tuple(r * 1.14 for r in crown)
    bottom = 0.955 if person.hat != "beanie" else 0.945
    tubes = [
        Tube(
            start=(0, 1.022, 0.01),
            end=(0, bottom, 0.01),
            widths=crown,
            depths=deep,
            texture=texture,
            bias=0.085,
            caps=False,
        )
    ]
    if person.hat == "cap":
        tubes.append(
            Tube(
                start=(0, bottom + 0.006, 0.05),
                end=(0, bottom - 0.012, 0.125),
                widths=(0.05, 0.04),
                depths=(0.008, 0.006),
                texture=texture,
                bias=0.06,
            )
        )
    elif person.hat == "brim":
        tubes.append(
            Tube(
                start=(0, bottom + 0.008, 0.01),
                end=(0, bottom - 0.006, 0.01),
                widths=(0.1, 0.11),
                depths=(0.1, 0.11),
                texture=texture,
                bias=0.086,
                caps=False,
            )
        )
    return tubes


def _bag(person: Person) -> list[Tube]:
    if person.bag == "backpack":
        widths = (0.05, 0.082, 0.088, 0.09, 0.086, 0.075)
        depths = (0.025, 0.042, 0.05, 0.055, 0.055, 0.04)
        back = -0.062 * person.girth - 0.036
        return [
            Tube(
                start=(0, 0.825, back),
                end=(0, 0.6, back),
                widths=widths,
                depths=depths,
                texture=_panel(person),
                bias=0.02,
                caps=False,
            )
        ]
    if person.bag in ("shoulder", "messenger"):
        x = person.side * -0.125 if person.bag == "messenger" else person.side * 0.13
        x *= math.sqrt(person.girth)
        y = 0.56 if person.bag == "messenger" else 0.66
        return [
            Tube(
                start=(x, y, -0.01),
                end=(x, y - 0.12, -0.01),
                widths=(0.03, 0.036, 0.036),
                depths=(0.075, 0.085, 0.08),
                texture=_panel(person),
                bias=0.05,
                caps=False,
            )
        ]
    return []


@functools.lru_cache(maxsize=64)
def _panel(person: Person) -> textures.Texture:
    """A bag's cloth: a pocket of the second colour on the lower half."""
    texture = textures.plain(person.bag_colours[0])
    texture[36:58] = person.bag_colours[1]
    texture[33:36] = 25
    return texture


def _ball(centre: Point, radius: float, texture: textures.Texture, bias: float) -> Tube:
    x, y, z = centre
    return Tube(
        start=(x, y + 0.001, z),
        end=(x, y - 0.001, z),
        widths=(radius, radius),
        depths=(radius, radius),
        texture=texture,
        bias=bias,
    )
