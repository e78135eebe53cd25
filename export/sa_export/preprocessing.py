"""What foreign models expect to be done to their crops, by name, and slips in saying so."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Images
from sa_runtime.artefact.contract import ColourOrder
from sa_runtime.errors import InputError, bad_value, check_fields

Three = tuple[float, float, float]
IMAGENET_MEAN: Three = (0.485, 0.456, 0.406)
IMAGENET_STD: Three = (0.229, 0.224, 0.225)
_HALF: Three = (0.5, 0.5, 0.5)
_CLOSE = 0.002


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a foreign model expects to be done to its crops.

    Attributes:
        colour: order of its channels.
        divisor: what pixels of 0..255 are divided by before ``mean`` and ``std``.
        mean, std: of the divided pixels, in the order of ``colour``.
    """

    colour: ColourOrder = "rgb"
    divisor: float = 255.0
    mean: Three = IMAGENET_MEAN
    std: Three = IMAGENET_STD

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.colour not in ("rgb", "bgr"):
            raise bad_value("colour", self.colour, "expected rgb or bgr")
        check_fields(
            self,
            [
                ("divisor", self.divisor > 0, "a number above 0"),
                ("std", min(self.std) > 0, "numbers above 0"),
            ],
        )
        self._check_scale()

    def _check_scale(self) -> None:
        """Mean and deviation have the scale of the divided pixels.

        Without that every crop gets about the same vector, and no comparison with the original
        shows it.
        """
        largest = 255 / self.divisor
        if max(self.mean) > largest or max(self.std) > largest:
            said = ",".join(f"{x:g}" for x in self.mean)
            raise bad_value(
                "mean",
                said,
                f"mean and std of pixels from 0 to 255, but pixels are divided by "
                f"{self.divisor:g} first, to 0..{largest:g}; pass `divisor=1`, or divide mean and "
                f"std by {self.divisor:g}",
            )
        if self.divisor == 1 and 0 < max(self.mean) < 1 and max(self.std) < 1:
            raise bad_value(
                "divisor",
                self.divisor,
                "mean and std are those of pixels from 0 to 1, but pixels are left at 0 to 255; "
                "pass `divisor=255`",
            )

    def apply(self, images: Images) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 BGR -> (N, H, W, 3) float32 as the model wants its pixels."""
        pixels = images[..., ::-1] if self.colour == "rgb" else images
        scaled = pixels.astype(np.float64) / self.divisor
        return np.asarray((scaled - np.array(self.mean)) / np.array(self.std), np.float32)

    def line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(3,) scales and (3,) offsets of red, green and blue from 0 to 255.

        Two ways of saying the same have the same line.
        """
        scale = 1 / (np.array(self.std) * self.divisor)
        offset = -np.array(self.mean) / np.array(self.std)
        return (scale, offset) if self.colour == "rgb" else (scale[::-1], offset[::-1])

    def differs(self, other: Preprocessing) -> list[str]:
        """Which fields make it another function of the pixels than ``other``; empty where none."""
        wrong = [] if self.colour == other.colour else ["colour"]
        lines = zip(self.line(), other.line(), strict=True)
        if not all(np.allclose(ours, theirs, rtol=_CLOSE, atol=1e-6) for ours, theirs in lines):
            named = ("divisor", "mean", "std")
            wrong += [name for name in named if getattr(self, name) != getattr(other, name)]
        return wrong

    def __str__(self) -> str:
        mean, std = (",".join(f"{x:.4g}" for x in values) for values in (self.mean, self.std))
        return f"{self.colour.upper()}, divided by {self.divisor:g}, mean {mean}, std {std}"


PRESETS: dict[str, Preprocessing] = {
    "torchreid": Preprocessing(),
    "fastreid": Preprocessing(
        divisor=1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    ),
    "boxmot": Preprocessing(),
    "imagenet": Preprocessing(),
    "timm": Preprocessing(),
    "clip-reid": Preprocessing(mean=_HALF, std=_HALF),
    "transreid": Preprocessing(mean=_HALF, std=_HALF),
    "half": Preprocessing(mean=_HALF, std=_HALF),
    "unit": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "caffe": Preprocessing(
        colour="bgr", divisor=1.0, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0)
    ),
}
"""What each framework does to crops where nothing else is configured. ``timm``: ImageNet's figures,
or those that timm keeps for the architecture; ``unit``: pixels from 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessingHints:
    """What the user says of the preprocessing; ``None`` where nothing is said.

    Attributes:
        preset: a name of :data:`PRESETS`.
        colour, divisor, mean, std: see :class:`Preprocessing`.
    """

    preset: str | None = None
    colour: ColourOrder | None = None
    divisor: float | None = None
    mean: Three | None = None
    std: Three | None = None

    def given(self) -> dict[str, Any]:
        """The fields that are said one by one."""
        fields = {name: getattr(self, name) for name in ("colour", "divisor", "mean", "std")}
        return {name: value for name, value in fields.items() if value is not None}


def preset(name: str) -> Preprocessing:
    """A preset by name.

    Raises:
        InputError: an unknown one; the message lists them.
    """
    if name not in PRESETS:
        raise bad_value("preprocessing", name, f"unknown; choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def chosen_preprocessing(
    hints: PreprocessingHints, *, own: Preprocessing | None, stated: Preprocessing | None, name: str
) -> tuple[Preprocessing, list[str]]:
    """What to do to the crops, and warnings about what the user says of it.

    Args:
        hints: what the user says.
        own: what the model's family does to its crops; ``None`` where the family is not known.
        stated: what the file itself says; ``None`` where it says nothing.
        name: of the file or the family, for messages.

    Raises:
        InputError: an unknown preset, fields that contradict the preset, or either contradicting
            what the file says.
    """
    base = Preprocessing() if own is None else own
    if hints.preset is not None and not (hints.preset == "timm" and own is not None):
        base = preset(hints.preset)
    elif stated is not None:
        base = stated
    chosen = dataclasses.replace(base, **hints.given()) if hints.given() else base
    if hints.preset is not None and (wrong := chosen.differs(base)):
        raise InputError(
            f"`preprocessing={hints.preset!r}` is {base}; "
            f"{' and '.join(f'`{field}`' for field in wrong)} contradicts it; leave one of them out"
        )
    if stated is not None and (wrong := chosen.differs(stated)):
        raise InputError(
            f"{name} says itself that it was trained on {stated}; "
            f"{_blamed(hints, wrong)} contradicts it; leave it out"
        )
    warnings = []
    if stated is None and own is not None and (wrong := chosen.differs(own)):
        warnings.append(
            f"{name} trains on {own}; {_blamed(hints, wrong)} says something else: vectors will "
            "be worse unless this model was trained otherwise"
        )
    elif own is None:
        warnings += order_slips(chosen)
    return chosen, warnings


def _blamed(hints: PreprocessingHints, fields: list[str]) -> str:
    """What the user said, as the parameters of a message."""
    if hints.preset is not None:
        return f"`preprocessing={hints.preset!r}`"
    given = [field for field in hints.given() if field in fields] or list(hints.given()) or fields
    return " and ".join(f"`{field}`" for field in given)


def order_slips(chosen: Preprocessing) -> list[str]:
    """Warnings where well-known figures stand in the other order than the colours."""
    figures = (IMAGENET_MEAN, IMAGENET_STD) if chosen.divisor != 1 else ()
    scaled = [tuple(np.round(255 * np.array(x), 4)) for x in (IMAGENET_MEAN, IMAGENET_STD)]
    for known, said in zip(figures or scaled, (chosen.mean, chosen.std), strict=True):
        in_order, reversed_order = (
            np.allclose(said, values, rtol=_CLOSE) for values in (known, known[::-1])
        )
        if (in_order and chosen.colour == "bgr") or (reversed_order and chosen.colour == "rgb"):
            order = "RGB" if in_order else "BGR"
            return [
                f"`colour={chosen.colour!r}`, but mean and std are ImageNet's in the order of "
                f"{order}; reverse them, or pass the other colour"
            ]
    return []
