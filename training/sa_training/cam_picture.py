"""Class activation maps drawn over their image, side by side."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Image
from sa_runtime.retrieval.sheet import INK, PAPER, Sheet
from sa_training.cam import ClassActivation, Map

# Both ramps grow evenly in lightness, so that colour-blind people and grey prints keep the order.
_ACTIVATION, _ATTENTION = cv2.COLORMAP_INFERNO, cv2.COLORMAP_VIRIDIS
_OPACITY = 0.62

_TILE_WIDTH = 168
_GAP = 18
_MARGIN = 28
_HEAD = 112
_FOOT = 52
_BAR = 10
_CLEAR = 44
"""Width at both ends of a scale that their numbers take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Column:
    """One tile: its titles and, but for the image itself, the map over it and how to draw it.

    Attributes:
        low: value at the lower end of the ramp.
        mark: value that has a name of its own: no activation, mean attention.
    """

    title: str
    subtitle: str
    values: Map | None = None
    ramp: int = _ACTIVATION
    low: float = 0.0
    mark: float = 0.0


def cam_picture(
    image: Image, activation: ClassActivation, name: str, size: tuple[int, int], *, stages: bool
) -> Image:
    """A panel: image, class activation of GAP, of GAP with SA, attention and that of the stages.

    Every map has a colour scale of its own, printed below it: class activations from their least
    to their largest value, attention from 0.

    Args:
        image: (H, W, 3) uint8 BGR, of any size.
        activation: of the image.
        name: printed above.
        size: height and width of the network's input, for the tiles' shape.
        stages: add the attention of stages 1 to 3.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    columns = [
        _Column(title="image", subtitle=f"{image.shape[1]} x {image.shape[0]} pixels"),
        _activation("GAP", activation.gap),
        _activation("GAP with SA", activation.sa),
        _attention("last map", activation.attention),
    ]
    if stages:
        columns += [
            _attention(f"stage {k}", values) for k, values in enumerate(activation.stages, start=1)
        ]
    tile = crops.resize(image, round(_TILE_WIDTH * size[0] / size[1]), _TILE_WIDTH)
    sheet = Sheet(
        _HEAD + tile.shape[0] + _FOOT, 2 * _MARGIN + len(columns) * (_TILE_WIDTH + _GAP) - _GAP
    )
    limit = sheet.width - 2 * _MARGIN
    sheet.text(name, _MARGIN, 40, height=13, colour=INK, limit=limit)
    seen = f"class {activation.label}, probability {activation.probability:.3f}"
    sheet.text(seen, _MARGIN, 60, height=9, limit=limit)
    for index, column in enumerate(columns):
        _draw(sheet, column, tile, _MARGIN + index * (_TILE_WIDTH + _GAP))
    return sheet.finish()


def _activation(title: str, values: Map) -> _Column:
    low = float(values.min())
    return _Column(title=title, subtitle="class activation", values=values, low=low)


def _attention(subtitle: str, values: Map) -> _Column:
    return _Column(title="attention", subtitle=subtitle, values=values, ramp=_ATTENTION, mark=1.0)


def _draw(sheet: Sheet, column: _Column, tile: Image, x: int) -> None:
    sheet.text(column.title, x, _HEAD - 24, height=10, colour=INK, limit=_TILE_WIDTH)
    sheet.text(column.subtitle, x, _HEAD - 8, height=8, limit=_TILE_WIDTH)
    if column.values is None:
        sheet.image(tile, x, _HEAD)
        return
    high = float(column.values.max())
    sheet.image(overlay(tile, column.values, column.low, high, column.ramp), x, _HEAD)
    _draw_scale(sheet, column, high, x, _HEAD + tile.shape[0] + 8)


def _draw_scale(sheet: Sheet, column: _Column, high: float, x: int, y: int) -> None:
    """The ramp with its ends, and the mark where it is clear of them."""
    steps = np.linspace(0, 255, _TILE_WIDTH).astype(np.uint8)[None].repeat(_BAR, axis=0)
    bar = np.asarray(cv2.applyColorMap(steps, column.ramp), np.uint8)
    sheet.text(f"{column.low:.3g}", x, y + _BAR + 16, height=8)
    sheet.text(f"{high:.3g}", x + _TILE_WIDTH, y + _BAR + 16, height=8, align=1)
    if high > column.low:
        at = round(_TILE_WIDTH * (column.mark - column.low) / (high - column.low))
        if _CLEAR <= at <= _TILE_WIDTH - _CLEAR:
            bar[:, at - 1 : at + 1] = PAPER
            sheet.text(f"{column.mark:g}", x + at, y + _BAR + 16, height=8, align=0.5)
    sheet.image(bar, x, y)


def overlay(tile: Image, values: Map, low: float, high: float, ramp: int) -> Image:
    """A map over an image in shades of grey; a map of one value takes the ramp's lower end.

    Args:
        tile: (H, W, 3) uint8 BGR.
        values: (h, w) float32, enlarged to the tile.
        low: value at the lower end of the ramp.
        high: value at its upper end.
        ramp: one of OpenCV's colour maps.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    height, width = tile.shape[:2]
    large = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
    span = high - low
    shares = (large - low) / span if span > 0 else np.zeros_like(large)
    colours = cv2.applyColorMap(np.round(255 * shares.clip(0, 1)).astype(np.uint8), ramp)
    grey = cv2.cvtColor(cv2.cvtColor(tile, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(colours, _OPACITY, grey, 1 - _OPACITY, 0), np.uint8)
