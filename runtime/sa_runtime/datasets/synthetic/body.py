"""A walking body of tubes: legs, trunk, arms and head of a person at one phase of the gait.

Lengths are shares of the body's height; axes as in :mod:`sa_runtime.datasets.synthetic.tubes`.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from sa_runtime.datasets.synthetic import textures
from sa_runtime.datasets.synthetic.accessories import bag, hair_behind, hat, tote
from sa_runtime.datasets.synthetic.people import Person
from sa_runtime.datasets.synthetic.textures import Texture, plain
from sa_runtime.datasets.synthetic.tubes import Sprite, Tube, View, ball, between, hung, render

_UNDER = -0.5
"""Bias of the legs, which clothes of the upper body always hide."""


@dataclasses.dataclass(frozen=True)
class Wardrobe:
    """The textures of one person."""

    upper: Texture
    sleeve: Texture
    legs: tuple[Texture, Texture]
    skirt: Texture
    head: Texture


@functools.lru_cache(maxsize=128)
def wardrobe(person: Person) -> Wardrobe:
    """The textures of a person, kept for the next view."""
    return Wardrobe(
        textures.upper(person),
        textures.sleeve(person),
        (textures.leg(person, 1), textures.leg(person, -1)),
        textures.skirt(person),
        textures.head(person),
    )


def draw(person: Person, view: View, *, unit: int = 288) -> Sprite:
    """Draw a person; ``unit`` is the body's height in pixels before foreshortening."""
    return render(body(person, view.phase), view, unit=unit)


def body(person: Person, phase: float) -> list[Tube]:
    """Every tube of a person, standing on the ground at one phase (radians) of the gait."""
    clothes = wardrobe(person)
    left, left_low = _leg(person, 1, phase, clothes.legs[0])
    right, right_low = _leg(person, -1, phase + math.pi, clothes.legs[1])
    tubes = [
        *left,
        *right,
        *_trunk(person, clothes, phase),
        *_arm(person, 1, phase + math.pi, clothes),
        *_arm(person, -1, phase, clothes),
        *_head(person, clothes),
        *bag(person),
    ]
    return [tube.raised(-min(left_low, right_low)) for tube in tubes]


def _leg(person: Person, side: int, phase: float, cloth: Texture) -> tuple[list[Tube], float]:
    """The tubes of one leg and its lowest point."""
    g = person.girth
    hip_angle = math.radians(27) * person.gait * math.sin(phase)
    flexion = math.radians(6 + 46 * max(0.0, math.cos(phase)) * person.gait)
    hip = (side * 0.047 * math.sqrt(g), person.leg, 0.0)
    knee = hung(hip, person.leg * 0.49, hip_angle)
    ankle = hung(knee, person.leg * 0.43, hip_angle - flexion)
    toe = hung(ankle, 0.105, math.pi / 2 + 0.12 + 0.5 * min(0.0, hip_angle - flexion))
    heel = (ankle[0], ankle[1] - 0.012, ankle[2] - 0.016)

    skin, shoe = plain(person.skin), plain(person.shoe)
    shorts = person.lower == "shorts" and person.upper != "dress"
    covered = person.lower in ("trousers", "wide") and person.upper != "dress"
    thigh = (0.062 * g, 0.062 * g, 0.056 * g) if shorts else (0.06 * g, 0.054 * g, 0.043 * g)
    hem = 0.05 if person.lower == "wide" else 0.031
    shin = (0.041 * g, 0.038 * g, hem) if covered else (0.035 * g, 0.036 * g, 0.023)
    tubes = [
        Tube(
            start=hip,
            end=knee,
            widths=thigh,
            texture=cloth if covered or shorts else skin,
            rows=(0.0, 0.5),
            bias=_UNDER,
        ),
        Tube(
            start=knee,
            end=ankle,
            widths=shin,
            texture=cloth if covered else skin,
            rows=(0.5, 1.0),
            bias=_UNDER - 0.002,
        ),
        Tube(
            start=heel,
            end=toe,
            widths=(0.03, 0.033, 0.024),
            depths=(0.026, 0.02),
            texture=shoe,
            bias=_UNDER,
        ),
    ]
    if not covered:
        top = between(knee, ankle, 0.45 if person.boots else 0.86)
        width, cover = (0.037, shoe) if person.boots else (0.026, plain(person.socks))
        tubes.append(
            Tube(start=top, end=ankle, widths=(width, width), texture=cover, bias=_UNDER + 0.001)
        )
    return tubes, min(ankle[1], toe[1], heel[1]) - 0.026


def _trunk(person: Person, clothes: Wardrobe, phase: float) -> list[Tube]:
    g, s = person.girth, person.shoulders
    coat = person.upper == "coat"
    bulk = 1.12 if person.upper in ("coat", "vest") else 1.0
    hips = person.leg - 0.03
    widths = (0.035, 0.1 * s, 0.118 * s, 0.112 * s, 0.098 * g, 0.092 * g, 0.1 * g, 0.1 * g)
    depths = (0.035, 0.052, 0.062 * g, 0.066 * g, 0.064 * g, 0.062 * g, 0.064 * g, 0.062 * g)
    tubes = [
        Tube(
            start=(0, 0.845, 0),
            end=(0, hips, 0),
            widths=tuple(width * bulk for width in widths),
            depths=tuple(depth * bulk for depth in depths),
            texture=clothes.upper,
            bias=0.03,
            caps=False,
        ),
        Tube(
            start=(0, 0.885, 0.012),
            end=(0, 0.82, 0),
            widths=(0.03, 0.034),
            texture=plain(person.skin),
            bias=0.031,
        ),
    ]
    if person.scarf is not None:
        tubes.append(
            Tube(
                start=(0, 0.856, 0.006),
                end=(0, 0.822, 0.004),
                widths=(0.05, 0.06),
                depths=(0.05, 0.055),
                texture=plain(person.scarf),
                bias=0.062,
            )
        )
    if coat or person.upper == "dress" or person.lower in ("skirt", "long-skirt"):
        long = person.lower == "long-skirt" and not coat
        spread = 0.03 + 0.055 * abs(math.sin(phase)) * person.gait
        tubes.append(
            Tube(
                start=(0, hips + 0.05, 0),
                end=(0, 0.12 if long else person.leg * (0.48 if coat else 0.6), 0),
                widths=(0.098 * g * bulk, 0.112 * g, 0.1 * g * (1.25 if coat else 1.4)),
                depths=(0.064 * g * bulk, 0.08 * g, 0.06 * g + spread),
                texture=clothes.skirt,
                bias=0.028,
                caps=False,
            )
        )
    else:
        tubes.append(
            Tube(
                start=(0, hips + 0.03, 0),
                end=(0, hips - 0.02, 0),
                widths=(0.096 * g, 0.1 * g, 0.096 * g),
                depths=(0.06 * g, 0.062 * g, 0.06 * g),
                texture=clothes.legs[0],
                rows=(0.0, 0.1),
                bias=0.02,
                caps=False,
            )
        )
    return tubes


def _arm(person: Person, side: int, phase: float, clothes: Wardrobe) -> list[Tube]:
    carrying = person.bag == "tote" and side == person.side
    angle = math.radians(24) * person.gait * math.sin(phase) * (0.35 if carrying else 1.0)
    bent = angle + math.radians(12 if carrying else 22 + 10 * math.sin(phase))
    x, y = side * 0.105 * person.shoulders, 0.783
    shoulder = (x, y, 0.0)
    elbow = hung((x + side * 0.022 * person.girth, y, 0.0), 0.16, angle)
    hand = hung(elbow, 0.15, bent)
    thick = 0.9 + 0.25 * (person.girth - 1) + (0.12 if person.upper == "coat" else 0.0)
    skin = plain(person.skin)
    cover = clothes.sleeve if person.upper in ("sweater", "open-jacket", "coat") else skin
    parts: list[Tube] = [
        Tube(
            start=shoulder,
            end=elbow,
            widths=(0.036 * thick, 0.033 * thick, 0.029 * thick),
            texture=cover,
            rows=(0.0, 0.5),
        ),
        Tube(
            start=elbow,
            end=hand,
            widths=(0.028 * thick, 0.026 * thick, 0.021 * thick),
            texture=cover,
            rows=(0.5, 1.0),
        ),
        Tube(start=hand, end=hung(hand, 0.03, bent), widths=(0.02, 0.016), texture=skin),
    ]
    if person.upper in ("t-shirt", "dress"):
        wide = (0.04 * thick, 0.041 * thick)
        end = between(shoulder, elbow, 0.55)
        parts.insert(1, Tube(start=shoulder, end=end, widths=wide, texture=clothes.sleeve))
    if carrying:
        parts.append(tote(person, hand))
    # One anchor for the whole arm, so that none of its parts slips behind another.
    anchor = between(shoulder, hand, 0.5)
    return [
        dataclasses.replace(part, anchor=anchor, bias=0.026 + 0.001 * order)
        for order, part in enumerate(parts)
    ]


def _head(person: Person, clothes: Wardrobe) -> list[Tube]:
    oval = (0.02, 0.044, 0.056, 0.06, 0.06, 0.058, 0.052, 0.042, 0.022)
    return [
        Tube(
            start=(0, 1.0, 0.012),
            end=(0, 0.862, 0.012),
            widths=oval,
            depths=tuple(radius * 1.16 for radius in oval),
            texture=clothes.head,
            bias=0.07,
            caps=False,
        ),
        ball((0, 0.922, 0.082), 0.011, plain(person.skin), 0.0),
        *hair_behind(person),
        *hat(person),
    ]
