"""Who lives in the synthetic world: appearance, drawn from the seed and the person's number."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from sa_runtime.arrays import Bgr
from sa_runtime.datasets.synthetic.config import rng

OUTFITS = 24
"""Sets of colours that clothes come in. Several people share one, so that colour alone identifies
no person."""

GARMENT_COLOURS: dict[str, tuple[Bgr, float]] = {
    "black": ((30, 27, 26), 3.0),
    "charcoal": ((68, 62, 60), 2.0),
    "grey": ((132, 128, 126), 1.5),
    "silver": ((192, 190, 188), 1.0),
    "white": ((236, 236, 234), 2.0),
    "navy": ((78, 42, 30), 2.0),
    "blue": ((168, 92, 48), 1.5),
    "sky": ((214, 176, 134), 1.0),
    "teal": ((126, 124, 32), 0.7),
    "green": ((62, 116, 46), 0.9),
    "olive": ((54, 98, 98), 0.9),
    "yellow": ((62, 192, 222), 0.8),
    "orange": ((42, 118, 220), 0.7),
    "red": ((44, 38, 182), 1.3),
    "maroon": ((42, 28, 100), 0.8),
    "pink": ((170, 144, 224), 0.8),
    "purple": ((134, 62, 108), 0.7),
    "brown": ((46, 72, 104), 1.0),
    "beige": ((148, 182, 204), 1.2),
}
"""Colours of clothes with how common they are."""
SKINS: tuple[Bgr, ...] = (
    (176, 200, 236),
    (150, 180, 224),
    (120, 156, 206),
    (92, 128, 180),
    (62, 92, 140),
    (44, 62, 98),
)
HAIRS: tuple[Bgr, ...] = (
    (26, 24, 26),
    (36, 44, 62),
    (46, 70, 104),
    (96, 158, 204),
    (52, 84, 168),
    (162, 160, 162),
)
PATTERNS: dict[str, float] = {
    "plain": 3.0,
    "hoops": 2.5,
    "pinstripes": 1.5,
    "checks": 1.5,
    "plaid": 1.5,
    "block-top": 1.5,
    "block-bottom": 1.0,
    "band": 1.5,
    "gradient": 1.2,
    "dots": 1.0,
    "diagonal": 1.0,
    "halves": 1.0,
    "sides": 1.0,
    "camouflage": 0.8,
}
UPPERS: dict[str, float] = {
    "t-shirt": 2.5,
    "sweater": 2.5,
    "open-jacket": 1.8,
    "coat": 1.3,
    "vest": 0.9,
    "dress": 1.0,
}
LOWERS: dict[str, float] = {
    "trousers": 5.0,
    "wide": 1.0,
    "shorts": 1.8,
    "skirt": 1.4,
    "long-skirt": 0.6,
}
LEG_PATTERNS: dict[str, float] = {
    "plain": 5.0,
    "side-stripe": 1.4,
    "checks": 0.6,
    "faded": 1.0,
    "cuffs": 0.9,
    "camouflage": 0.6,
    "two-tone": 0.6,
}
HAIRCUTS: dict[str, float] = {
    "short": 3.0,
    "bald": 0.8,
    "bob": 1.3,
    "long": 1.8,
    "ponytail": 1.2,
    "bun": 0.9,
    "afro": 0.8,
}
HATS: dict[str, float] = {"none": 7.0, "cap": 1.2, "beanie": 1.0, "brim": 0.6, "hood": 0.7}
BAGS: dict[str, float] = {
    "none": 4.0,
    "backpack": 2.4,
    "shoulder": 1.4,
    "messenger": 1.2,
    "tote": 1.2,
}
LOGOS: dict[str, float] = {
    "none": 6.0,
    "disc": 1.0,
    "box": 1.0,
    "triangle": 0.7,
    "cross": 0.7,
    "bars": 0.8,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
    """One look. Lengths are shares of the body's height unless they say otherwise.

    ``height_m`` is in metres; ``girth`` and ``shoulders`` scale widths; ``leg`` is the height of
    the hips; ``gait`` scales the stride; ``side`` (-1 right, 1 left) is where things are carried.
    """

    number: int
    height_m: float
    girth: float
    shoulders: float
    leg: float
    gait: float
    side: int
    skin: Bgr
    hair: Bgr
    haircut: str
    beard: bool
    glasses: bool
    hat: str
    hat_colour: Bgr
    upper: str
    upper_pattern: str
    upper_colours: tuple[Bgr, Bgr, Bgr]
    upper_scale: float
    sleeve_colour: Bgr
    sleeve_hoop: Bgr | None
    front_logo: str
    back_logo: str
    logo_colour: Bgr
    lower: str
    lower_pattern: str
    lower_colours: tuple[Bgr, Bgr]
    shoe: Bgr
    boots: bool
    socks: Bgr
    scarf: Bgr | None
    bag: str
    bag_colours: tuple[Bgr, Bgr]


@functools.lru_cache(maxsize=128)
def person(seed: int, number: int) -> Person:
    """The look of person ``number``; strangers (distractors) have numbers above every identity's.

    >>> person(0, 7) == person(0, 7)
    True
    >>> person(0, 7) == person(0, 8)
    False
    """
    draw = rng(seed, "person", number)
    (first, second, third), legs = _outfit(seed, number % OUTFITS)
    feminine = _chance(draw, 0.45)
    upper = _one(draw, UPPERS)
    bag = _cloth(draw, unlike=[first])
    return Person(
        number=number,
        height_m=float(np.clip(draw.normal(1.66 if feminine else 1.77, 0.075), 1.45, 2.0)),
        girth=float(np.clip(draw.normal(1.0, 0.14), 0.75, 1.45)),
        shoulders=float(np.clip(draw.normal(0.92 if feminine else 1.05, 0.07), 0.8, 1.2)),
        leg=float(draw.uniform(0.49, 0.545)),
        gait=float(draw.uniform(0.8, 1.2)),
        side=1 if _chance(draw, 0.5) else -1,
        skin=_vary(_any_of(draw, SKINS), draw, 8),
        hair=_vary(_any_of(draw, HAIRS), draw, 8),
        haircut=_haircut(_one(draw, HAIRCUTS), feminine=feminine, swap=_chance(draw, 0.75)),
        beard=not feminine and _chance(draw, 0.3),
        glasses=_chance(draw, 0.2),
        hat=_one(draw, HATS),
        hat_colour=_cloth(draw),
        upper=upper if feminine or upper != "dress" else "sweater",
        upper_pattern=_one(draw, PATTERNS),
        upper_colours=(first, second, third),
        upper_scale=float(draw.uniform(0.6, 1.6)),
        sleeve_colour=third if _chance(draw, 0.25) else first,
        sleeve_hoop=second if _chance(draw, 0.25) else None,
        front_logo=_one(draw, LOGOS),
        back_logo=_one(draw, LOGOS),
        logo_colour=third if _chance(draw, 0.5) else second,
        lower=_lower(_one(draw, LOWERS), feminine=feminine),
        lower_pattern=_one(draw, LEG_PATTERNS),
        lower_colours=legs,
        shoe=_cloth(draw),
        boots=_chance(draw, 0.2),
        socks=_cloth(draw),
        scarf=_cloth(draw, unlike=[first]) if _chance(draw, 0.14) else None,
        bag=_one(draw, BAGS),
        bag_colours=(bag, _cloth(draw, unlike=[bag])),
    )


def _outfit(seed: int, which: int) -> tuple[tuple[Bgr, Bgr, Bgr], tuple[Bgr, Bgr]]:
    """Three colours of the upper body, two of the legs."""
    draw = rng(seed, "outfit", which)
    first = _cloth(draw)
    second = _cloth(draw, unlike=[first])
    third = _cloth(draw, unlike=[first, second])
    legs = _cloth(draw, unlike=[first] if _chance(draw, 0.6) else [])
    return (first, second, third), (legs, _cloth(draw, unlike=[legs]))


def _one(draw: np.random.Generator, table: dict[str, float]) -> str:
    weights = np.array(list(table.values()))
    return list(table)[int(draw.choice(len(table), p=weights / weights.sum()))]


def _any_of(draw: np.random.Generator, items: Sequence[Bgr]) -> Bgr:
    return items[int(draw.integers(len(items)))]


def _chance(draw: np.random.Generator, p: float) -> bool:
    return bool(draw.random() < p)


def _cloth(draw: np.random.Generator, *, unlike: Sequence[Bgr] = ()) -> Bgr:
    """A colour of cloth, well apart from some others."""
    weights = np.array([weight for _, weight in GARMENT_COLOURS.values()])
    bases = [colour for colour, _ in GARMENT_COLOURS.values()]
    for _ in range(20):
        base = bases[int(draw.choice(len(bases), p=weights / weights.sum()))]
        colour = _vary(base, draw, 14)
        if all(_apart(colour, other) for other in unlike):
            break
    return colour


def _haircut(drawn: str, *, feminine: bool, swap: bool) -> str:
    if not swap:
        return drawn
    if feminine:
        return {"bald": "long", "short": "bob"}.get(drawn, drawn)
    return {"long": "short", "ponytail": "short", "bob": "short", "bun": "bald"}.get(drawn, drawn)


def _lower(drawn: str, *, feminine: bool) -> str:
    return drawn if feminine else {"skirt": "shorts", "long-skirt": "wide"}.get(drawn, drawn)


def _vary(colour: Bgr, draw: np.random.Generator, spread: float) -> Bgr:
    varied = np.clip(
        np.array(colour) + draw.normal(0, spread, 3) * 0.6 + draw.normal(0, spread), 8, 246
    )
    return int(varied[0]), int(varied[1]), int(varied[2])


def _apart(first: Bgr, second: Bgr) -> bool:
    return float(np.linalg.norm(np.subtract(first, second))) > 90
