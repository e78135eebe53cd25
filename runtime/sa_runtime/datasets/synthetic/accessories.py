"""What people wear on their heads and carry, as tubes."""

from __future__ import annotations

import functools
import math

from sa_runtime.datasets.synthetic.people import Person
from sa_runtime.datasets.synthetic.textures import Texture, plain
from sa_runtime.datasets.synthetic.tubes import Point, Tube, ball


def hair_behind(person: Person) -> list[Tube]:
    """Hair that stands off the head; none fits under a hood."""
    hair = plain(person.hair)
    if person.hat == "hood":
        return []
    free = person.hat in ("none", "cap")
    if person.haircut == "afro" and free:
        return [ball((0, 0.962, -0.022), 0.079, hair, 0.06)]
    if person.haircut == "bun" and free:
        return [ball((0, 1.0, -0.035), 0.032, hair, 0.055)]
    if person.haircut in ("long", "bob"):
        return [
            Tube(
                start=(0, 0.95, -0.034),
                end=(0, 0.74 if person.haircut == "long" else 0.845, -0.05),
                widths=(0.058, 0.07, 0.062),
                depths=(0.04, 0.042, 0.024),
                texture=hair,
                bias=0.058,
            )
        ]
    if person.haircut == "ponytail":
        tail = (0.018, 0.028, 0.02, 0.01)
        return [
            Tube(start=(0, 0.955, -0.07), end=(0, 0.8, -0.1), widths=tail, texture=hair, bias=0.065)
        ]
    return []


def hat(person: Person) -> list[Tube]:
    """A cap, beanie, brimmed hat or hood."""
    if person.hat == "none":
        return []
    if person.hat == "hood":
        rim = (0.022, 0.05, 0.064, 0.07, 0.072, 0.072, 0.07, 0.066)
        return [
            Tube(
                start=(0, 1.022, -0.012),
                end=(0, 0.825, -0.03),
                widths=rim,
                depths=tuple(radius * 1.08 for radius in rim),
                texture=plain(person.upper_colours[0]),
                bias=0.066,
                caps=False,
            )
        ]
    cloth = plain(person.hat_colour)
    tight = person.hat == "beanie"
    crown = (0.03, 0.056, 0.067, 0.07) if tight else (0.024, 0.05, 0.062, 0.066)
    bottom = 0.945 if tight else 0.955
    tubes = [
        Tube(
            start=(0, 1.022, 0.01),
            end=(0, bottom, 0.01),
            widths=crown,
            depths=tuple(radius * 1.14 for radius in crown),
            texture=cloth,
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
                texture=cloth,
                bias=0.06,
            )
        )
    elif person.hat == "brim":
        tubes.append(
            Tube(
                start=(0, bottom + 0.008, 0.01),
                end=(0, bottom - 0.006, 0.01),
                widths=(0.1, 0.11),
                texture=cloth,
                bias=0.086,
                caps=False,
            )
        )
    return tubes


def bag(person: Person) -> list[Tube]:
    """A backpack, or a bag at the hip; a tote hangs from the hand, see :func:`tote`."""
    if person.bag == "backpack":
        back = -0.062 * person.girth - 0.036
        return [
            Tube(
                start=(0, 0.825, back),
                end=(0, 0.6, back),
                widths=(0.05, 0.082, 0.088, 0.09, 0.086, 0.075),
                depths=(0.025, 0.042, 0.05, 0.055, 0.055, 0.04),
                texture=_panel(person),
                bias=0.02,
                caps=False,
            )
        ]
    if person.bag in ("shoulder", "messenger"):
        crossed = person.bag == "messenger"
        x = person.side * (-0.125 if crossed else 0.13) * math.sqrt(person.girth)
        return [_box(person, (x, 0.56 if crossed else 0.66, -0.01), 0.12)]
    return []


def tote(person: Person, hand: Point) -> Tube:
    """A bag that hangs from a hand."""
    x, y, z = hand
    return _box(person, (x, y - 0.04, z), 0.16)


def _box(person: Person, top: Point, drop: float) -> Tube:
    x, y, z = top
    return Tube(
        start=top,
        end=(x, y - drop, z),
        widths=(0.03, 0.036, 0.036),
        depths=(0.075, 0.085, 0.08),
        texture=_panel(person),
        bias=0.05,
        caps=False,
    )


@functools.lru_cache(maxsize=64)
def _panel(person: Person) -> Texture:
    """A bag's cloth: a pocket of the second colour on the lower half."""
    texture = plain(person.bag_colours[0]).copy()
    texture[36:58] = person.bag_colours[1]
    texture[33:36] = 25
    return texture
