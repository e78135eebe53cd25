"""Cloth, skin and hair as textures wrapped around body parts.

A texture is (64, 128, 3) uint8 BGR. Rows run from the upper end of the part to the lower one;
columns run around it: 0 is the person's left, 32 the front, 64 the right, 96 the back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Bgr
from sa_runtime.datasets.synthetic.people import Person

ROWS, COLUMNS = 64, 128
FRONT, BACK = COLUMNS // 4, 3 * COLUMNS // 4
Texture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
"""What broadcasts to (64, 128) bool."""

_DOWN = (np.arange(ROWS)[:, None] + 0.5) / ROWS
_AROUND = (np.arange(COLUMNS)[None, :] + 0.5) / COLUMNS


@functools.lru_cache(maxsize=512)
def plain(colour: Bgr) -> Texture:
    """One colour all around; shared, so read-only."""
    texture = _filled(colour)
    texture.setflags(write=False)
    return texture


def cloth(pattern: str, colours: tuple[Bgr, ...], scale: float, seed: int) -> Texture:
    """A woven or printed pattern.

    Args:
        pattern: a key of :data:`sa_runtime.datasets.synthetic.people.PATTERNS`.
        colours: ground colour first, then the colours of the pattern.
        scale: how many times the usual size the pattern is.
        seed: of what the pattern draws at random.
    """
    texture = _filled(colours[0])
    second = colours[1]
    if pattern in _PATCHES:
        _fill(texture, _PATCHES[pattern](scale), second)
    elif pattern == "plaid":
        mixed = tuple((a + b) // 2 for a, b in zip(colours[0], second, strict=True))
        _fill(texture, _hoops(scale) ^ _bars(scale), (mixed[0], mixed[1], mixed[2]))
        _fill(texture, _hoops(scale) & _bars(scale), second)
    elif pattern == "gradient":
        mix = np.clip((_DOWN - 0.15) / 0.7, 0, 1)[..., None]
        texture[:] = (1 - mix) * np.array(colours[0]) + mix * np.array(second)
    elif pattern == "camouflage":
        blots = _blots(seed, 3 * scale)
        _fill(texture, blots > 0.3, second)
        _fill(texture, blots < -0.6, colours[-1])
    return texture


def _hoops(scale: float) -> Mask:
    return (_DOWN * 6 / scale) % 1 < 0.5


def _bars(scale: float) -> Mask:
    return (_AROUND * round(16 / scale)) % 1 < 0.5


def _dots(scale: float) -> Mask:
    row = (_DOWN * 8 / scale) % 1 - 0.5
    moved = 0.5 * (np.floor(_DOWN * 8 / scale) % 2)
    column = (_AROUND * round(20 / scale) + moved) % 1 - 0.5
    return row**2 + column**2 < 0.09


_PATCHES: dict[str, Callable[[float], Mask]] = {
    "hoops": _hoops,
    "pinstripes": lambda scale: (_AROUND * round(22 / scale)) % 1 < 0.4,
    "checks": lambda scale: _hoops(scale) ^ _bars(scale),
    "block-top": lambda scale: 0.25 + 0.2 * scale > _DOWN,
    "block-bottom": lambda scale: 0.9 - 0.2 * scale < _DOWN,
    "band": lambda scale: np.abs(_DOWN - 0.42) < 0.12 * scale,
    "dots": _dots,
    "diagonal": lambda scale: (_DOWN * 4 / scale + _AROUND * round(6 / scale)) % 1 < 0.45,
    "halves": lambda scale: np.cos(2 * np.pi * _AROUND) > 0,
    "sides": lambda scale: np.abs(np.cos(2 * np.pi * _AROUND)) > 0.8,
}
"""Patterns of one colour on the ground: where it lies, at so many times the usual size."""


def upper(person: Person) -> Texture:
    """The torso, with prints, jacket opening, and the straps of what is carried."""
    seed = person.number
    first, second, third = person.upper_colours
    jacket = person.upper in ("open-jacket", "vest", "coat")
    pattern = person.upper_pattern
    texture = cloth(pattern, person.upper_colours, person.upper_scale, seed)
    angle = _from(FRONT)
    if person.upper == "open-jacket":
        inner = angle < 0.055 + 0.05 * person.upper_scale
        _fill(texture, inner & (_DOWN > -1), third)
        _fill(texture, (angle < 0.02) & (_DOWN < 0.12), person.skin)
    elif jacket:
        _fill(texture, (angle < 0.012) & (_DOWN > -1), _darker(second, 0.6))
        if person.upper == "vest":
            _fill(texture, ((_DOWN * 5) % 1 < 0.12) & (angle > -1), _darker(first, 0.6))
    else:
        _fill(texture, (angle + _DOWN * 0.55 < 0.07) & (_DOWN < 0.2), person.skin)
    if person.upper not in ("open-jacket", "dress"):
        _print(texture, person.front_logo, FRONT, person.logo_colour, person.upper_scale)
    _print(texture, person.back_logo, BACK, person.logo_colour, person.upper_scale * 1.2)
    if person.bag == "backpack":
        strap = np.abs(np.sin(2 * np.pi * (_AROUND - 0.25))) - 0.62
        front = (np.sin(2 * np.pi * _AROUND) > 0) & (np.abs(strap) < 0.13)
        _fill(texture, front & (_DOWN < 0.75), person.bag_colours[0])
    elif person.bag == "messenger":
        run = person.side * np.cos(2 * np.pi * _AROUND)
        _fill(texture, np.abs(run * 0.45 + 0.48 - _DOWN) < 0.055, person.bag_colours[0])
    return wrinkle(texture, seed, 0.10)


def sleeve(person: Person) -> Texture:
    """An arm's cloth; the pattern runs on where the sleeve has the torso's colour."""
    colours = (person.sleeve_colour, *person.upper_colours[1:])
    running = person.sleeve_colour == person.upper_colours[0] and person.upper_pattern in (
        "hoops",
        "pinstripes",
        "checks",
        "plaid",
        "dots",
        "camouflage",
    )
    pattern = person.upper_pattern if running else "plain"
    texture = cloth(pattern, colours, person.upper_scale * 1.6, person.number + 1)
    if person.sleeve_hoop is not None:
        _fill(texture, (np.abs(_DOWN - 0.5) < 0.16) & (_AROUND > -1), person.sleeve_hoop)
    return wrinkle(texture, person.number + 2, 0.10)


def leg(person: Person, side: int) -> Texture:
    """A trouser leg from hip to ankle; ``side`` 1 is the left leg, -1 the right."""
    colour, second = person.lower_colours
    texture = _filled(colour)
    pattern = person.lower_pattern
    if pattern == "side-stripe":
        _fill(texture, (side * np.cos(2 * np.pi * _AROUND) > 0.72) & (_DOWN > -1), second)
    elif pattern in ("checks", "camouflage"):
        texture = cloth(pattern, (colour, second, _darker(colour, 0.6)), 1.3, person.number + 3)
    elif pattern == "faded":
        light = np.clip(np.sin(2 * np.pi * _AROUND), 0, 1) * np.exp(-(((_DOWN - 0.3) / 0.25) ** 2))
        texture = np.clip(texture + 70.0 * light[..., None], 0, 255).astype(np.uint8)
    elif pattern == "cuffs":
        _fill(texture, (_DOWN > 0.86) & (_AROUND > -1), second)
    elif pattern == "two-tone":
        _fill(texture, (_DOWN > 0.5) & (_AROUND > -1), second)
    return wrinkle(texture, person.number + 4, 0.12)


def skirt(person: Person) -> Texture:
    """A skirt, or the part of a dress or coat below the waist."""
    if person.upper in ("dress", "coat"):
        texture = cloth(
            person.upper_pattern, person.upper_colours, person.upper_scale, person.number
        )
        if person.upper == "coat":
            seam = (_from(FRONT) < 0.015 + 0.03 * _DOWN) & (_DOWN > -1)
            _fill(texture, seam, _darker(person.lower_colours[0], 0.8))
    else:
        colours = (*person.lower_colours, person.lower_colours[0])
        pattern = {"side-stripe": "pinstripes", "cuffs": "block-bottom", "two-tone": "hoops"}
        name = pattern.get(person.lower_pattern, person.lower_pattern)
        texture = cloth(name, colours, 1.2, person.number + 5)
    folds = 1 - 0.10 * (np.sin(2 * np.pi * 11 * _AROUND) + 1) * _DOWN
    return np.clip(texture * folds[..., None], 0, 255).astype(np.uint8)


def head(person: Person) -> Texture:
    """A face at the front, hair on top, at the back and, by haircut, down the sides."""
    texture = _filled(person.skin)
    angle = _from(FRONT)
    brow, side, nape = {
        "bald": (-1.0, -1.0, -1.0),
        "short": (0.24, 0.42, 0.62),
        "bun": (0.2, 0.45, 0.68),
        "ponytail": (0.2, 0.45, 0.68),
        "bob": (0.3, 0.85, 0.9),
        "long": (0.26, 0.9, 1.0),
        "afro": (0.3, 0.6, 0.8),
    }[person.haircut]
    line = np.interp(angle, [0, 0.13, 0.2, 0.3, 0.5], [brow, brow, side, side, nape])
    _fill(texture, line > _DOWN, person.hair)
    shade = _darker(person.skin, 0.55)
    for eye in (-9, 9):
        where = (np.abs(_offset(FRONT + eye)) < 0.02) & (np.abs(_DOWN - 0.5) < 0.045)
        _fill(texture, where, (40, 35, 35))
    _fill(texture, (angle < 0.016) & (_DOWN > 0.52) & (_DOWN < 0.66), _darker(person.skin, 0.85))
    _fill(texture, (angle < 0.05) & (np.abs(_DOWN - 0.77) < 0.025), shade)
    if person.beard:
        low = (angle < 0.2) & (0.66 - 0.12 * (angle > 0.1) < _DOWN)
        mouth = (angle < 0.045) & (np.abs(_DOWN - 0.76) < 0.035)
        _fill(texture, low & ~mouth, person.hair)
    if person.glasses:
        for eye in (-9, 9):
            lens = (_offset(FRONT + eye) / 0.052) ** 2 + ((_DOWN - 0.5) / 0.075) ** 2 < 1
            _fill(texture, lens, (52, 44, 40))
        _fill(texture, (angle < 0.22) & (np.abs(_DOWN - 0.48) < 0.016), (30, 28, 28))
    return texture


def wrinkle(texture: Texture, seed: int, strength: float) -> Texture:
    """Folds: soft darker and lighter patches."""
    folds = 1 + strength * _blots(seed, 1.6)
    return np.clip(texture * folds[..., None], 0, 255).astype(np.uint8)


def _filled(colour: Bgr) -> Texture:
    texture = np.empty((ROWS, COLUMNS, 3), np.uint8)
    texture[:] = colour
    return texture


def _fill(texture: Texture, mask: Mask, colour: Bgr) -> None:
    texture[np.broadcast_to(mask, (ROWS, COLUMNS))] = colour


def _print(texture: Texture, shape: str, column: int, colour: Bgr, scale: float) -> None:
    """A print of a shape around (row 0.38, ``column``)."""
    x, y = _offset(column) / (0.11 * scale**0.5), (_DOWN - 0.38) / (0.2 * scale**0.5)
    masks: dict[str, Any] = {
        "none": np.zeros((ROWS, COLUMNS), bool),
        "disc": x**2 + y**2 < 1,
        "box": (np.abs(x) < 0.9) & (np.abs(y) < 0.7),
        "triangle": (y < 0.9) & (np.abs(x) < (y + 1) * 0.55),
        "cross": ((np.abs(x) < 0.35) & (np.abs(y) < 1.1)) | ((np.abs(y) < 0.4) & (np.abs(x) < 1)),
        "bars": (np.abs(x) < 1.1) & (np.abs(y) < 1) & ((y * 2) % 1 < 0.5),
    }
    _fill(texture, masks[shape], colour)


def _offset(column: float) -> NDArray[np.float64]:
    """Signed turns from a column, -0.5 to 0.5, as (1, 128)."""
    turns: NDArray[np.float64] = (_AROUND - (column + 0.5) / COLUMNS + 0.5) % 1 - 0.5
    return turns


def _from(column: float) -> NDArray[np.float64]:
    return np.abs(_offset(column))


def _blots(seed: int, size: float) -> NDArray[np.float32]:
    """Smooth noise of unit deviation that closes around the body, (64, 128)."""
    noise = np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    wide = np.concatenate([noise, noise, noise], axis=1)
    smooth = cv2.GaussianBlur(wide, (0, 0), sigmaX=3.2 * size, sigmaY=2.6 * size)
    middle = smooth[:, COLUMNS : 2 * COLUMNS]
    return np.asarray((middle - middle.mean()) / middle.std(), np.float32)


def _darker(colour: Bgr, factor: float) -> Bgr:
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)
