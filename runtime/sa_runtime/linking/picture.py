"""A picture of who was where when: a line for each identity, a bar for each track."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np

from sa_runtime.arrays import Bgr
from sa_runtime.errors import InputError, bad_value
from sa_runtime.linking.store import Identities
from sa_runtime.retrieval.sheet import INK, Sheet, write_png
from sa_runtime.system.files import refuse_inputs

MOST = 60
"""Identities that are drawn, those that most cameras saw first."""
# Okabe and Ito, in the order of a figure's lines; further cameras get hues around the circle.
_COLOURS: tuple[Bgr, ...] = (
    (178, 114, 0),
    (0, 94, 213),
    (115, 158, 0),
    (167, 121, 204),
    (0, 159, 230),
    (233, 180, 86),
    (66, 228, 240),
)
_RULE: Bgr = (232, 228, 224)
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _FOOT = 1000, 90, 24, 92, 20, 40


def check_timeline(out: Path, inputs: list[Path]) -> None:
    """Raise InputError unless the name ends in ``.png`` and nothing that is read is written."""
    if out.suffix.lower() != ".png":
        raise bad_value("picture", str(out), "is written as PNG; expected NAME.png")
    refuse_inputs(out, inputs, parameter="picture")


def draw_timeline(out: Path, found: Identities) -> None:
    """Draw the identities over time, coloured by camera.

    Raises:
        InputError: tracks of unknown time.
    """
    tracks, identity = found.tracks, found.links.identity
    if not np.isfinite([tracks.start, tracks.end]).all():
        raise InputError("tracks of unknown time: a picture shows times; expected rows that have")
    cameras = sorted(set(tracks.camera))
    names = np.array(tracks.camera)
    shown = sorted(
        np.unique(identity).tolist(),
        key=lambda who: (-len(set(names[identity == who])), tracks.start[identity == who].min()),
    )[:MOST]
    begin, end = float(tracks.start.min()), float(tracks.end.max())
    scale = (_WIDTH - _LEFT - _RIGHT) / max(end - begin, 1e-9)
    sheet = Sheet(_TOP + _ROW * len(shown) + _FOOT, _WIDTH)
    title = f"{found.count} identities on {len(tracks)} tracks, {found.across_cameras} of them "
    rest = "" if len(shown) == found.count else f"; {len(shown)} are drawn"
    sheet.text(f"{title}under several cameras{rest}", 20, 34, height=12, colour=INK)
    x = 20.0
    for index, camera in enumerate(cameras):
        sheet.fill(_colour(index), x=round(x), y=52, height=12, width=18)
        sheet.text(camera, x + 24, 63, height=9, limit=120)
        x += 34 + min(120, 9 * len(camera))
    for line, who in enumerate(shown):
        y = _TOP + line * _ROW
        sheet.text(str(who), _LEFT - 12, y + 13, height=8, align=1)
        sheet.fill(_RULE, x=_LEFT, y=y + _ROW - 1, height=1, width=_WIDTH - _LEFT - _RIGHT)
        for row in np.flatnonzero(identity == who).tolist():
            left = round(_LEFT + (tracks.start[row] - begin) * scale)
            width = max(3, round((tracks.end[row] - tracks.start[row]) * scale))
            colour = _colour(cameras.index(tracks.camera[row]))
            sheet.fill(colour, x=left, y=y + 3, height=_ROW - 7, width=width)
    foot = _TOP + _ROW * len(shown) + 22
    for place in range(5):
        value = begin + (end - begin) * place / 4
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * place / 4
        sheet.text(f"{value:.4g}", x, foot, height=8, align=place / 4)
    write_png(sheet.finish(), out)


def _colour(index: int) -> Bgr:
    if index < len(_COLOURS):
        return _COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.6, 0.8)
    return round(255 * blue), round(255 * green), round(255 * red)
