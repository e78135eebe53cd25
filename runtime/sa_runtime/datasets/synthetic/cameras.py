"""Cameras: where they stand, what they do to colours, and how a person lands in their frame."""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.synthetic.config import SyntheticConfig, rng

Image = NDArray[np.uint8]

_GOLDEN = 0.6180339887


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera on a pole and its picture processing.

    Attributes:
        index: from 0.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        focal: in pixels.
        pole_m: height above the ground, in metres.
        horizon: row of the frame at the height of the lens.
        path: radians, the direction most people walk here (as :class:`tubes.View` counts yaw).
        backward: share of the people who walk the other way.
        near_m: the nearest distance at which people walk.
        far_m: the farthest one.
        light: direction of the light, -1 left to 1 right.
        cast: gain of blue, green and red.
        saturation: 0 grey, 1 as it is.
        hue: radians that colours turn around the grey axis.
        gamma: exponent after the gains.
        blur: standard deviation of the lens blur, in pixels.
        noise: standard deviation of the sensor noise, in grey levels.
        quality: of the JPEG files.
    """

    index: int
    width: int
    height: int
    focal: float
    pole_m: float
    horizon: float
    path: float
    backward: float
    near_m: float
    far_m: float
    light: float
    cast: tuple[float, float, float]
    saturation: float
    hue: float
    gamma: float
    blur: float
    noise: float
    quality: int

    def foot(self, x_m: float, distance_m: float) -> tuple[float, float]:
        """Pixel of a point on the ground, ``x_m`` metres to the right of the axis."""
        return (
            self.width / 2 + self.focal * x_m / distance_m,
            self.horizon + self.focal * self.pole_m / distance_m,
        )

    def scale(self, distance_m: float) -> float:
        """Pixels per metre at a distance."""
        return self.focal / distance_m

    def pitch(self, distance_m: float) -> float:
        """Radians by which the camera looks down on a person's middle."""
        return math.atan2(self.pole_m - 0.9, distance_m)

    def half_width_m(self, distance_m: float) -> float:
        """Metres from the axis to the edge of the frame at a distance."""
        return self.width / 2 * distance_m / self.focal


@functools.lru_cache(maxsize=32)
def camera(config: SyntheticConfig, index: int) -> Camera:
    """Camera ``index`` (from 0) of a world.

    Directions and colour casts are spread evenly over the cameras, so that no two agree by chance.
    """
    draw = rng(config.seed, "camera", index)
    first = float(rng(config.seed, "cast").random())
    around = 2 * math.pi * (first + _GOLDEN * index)
    strength = draw.uniform(0.08, 0.16)
    cast = [1 + strength * math.cos(around - 2 * math.pi * channel / 3) for channel in range(3)]
    exposure = (0.82, 0.96, 1.12)[(index + round(first * 3)) % 3] * draw.uniform(0.92, 1.08)
    near = draw.uniform(5.2, 6.2)
    pole = draw.uniform(2.3, 3.4)
    focal = 0.78 * config.frame_width
    return Camera(
        index=index,
        width=config.frame_width,
        height=config.frame_height,
        focal=focal,
        pole_m=pole,
        horizon=config.frame_height * 0.97 - focal * pole / near,
        path=2 * math.pi * (0.06 + _GOLDEN * index),
        backward=draw.uniform(0.15, 0.35),
        near_m=near,
        far_m=near + draw.uniform(3.5, 5.0),
        light=draw.uniform(-1, 1),
        cast=(cast[0] * exposure, cast[1] * exposure, cast[2] * exposure),
        saturation=draw.uniform(0.65, 1.05),
        hue=draw.uniform(-0.12, 0.12),
        gamma=draw.uniform(0.78, 1.28),
        blur=draw.uniform(0.3, 1.0),
        noise=draw.uniform(2.0, 7.0),
        quality=int(draw.integers(78, 95)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exposure:
    """What varies from picture to picture of one camera.

    Attributes:
        gain: factor on every channel.
        cast: factors on blue, green and red.
        gamma: factor on the camera's exponent.
        blur: standard deviation in pixels, added to the lens blur (as variances).
        ramp: relative change of the light from the left to the right edge, and from top to bottom.
    """

    gain: float = 1.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur: float = 0.0
    ramp: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def drawn(cls, draw: np.random.Generator) -> Exposure:
        """A moment: clouds, white balance, focus."""
        b, g, r = np.exp(draw.normal(0, 0.06, 3))
        return cls(
            gain=float(np.exp(draw.normal(0, 0.11))),
            cast=(float(b), float(g), float(r)),
            gamma=float(np.exp(draw.normal(0, 0.1))),
            blur=float(draw.exponential(0.25)),
            ramp=(float(draw.normal(0, 0.2)), float(draw.normal(0, 0.2))),
        )


def develop(view: Image, eye: Camera, exposure: Exposure, draw: np.random.Generator) -> Image:
    """What the camera makes of the light: colour, tone, blur and noise.

    Args:
        view: (H, W, 3) uint8 BGR, true colours.
        eye: the camera.
        exposure: of this picture.
        draw: of the noise.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    gains = np.array(eye.cast) * np.array(exposure.cast) * exposure.gain
    colours = np.diag(gains) @ _turned(eye.hue) @ _saturated(eye.saturation)
    mixed = np.asarray(cv2.transform(view, colours), np.uint8)
    if exposure.ramp != (0.0, 0.0):
        mixed = _shaded(mixed, *exposure.ramp)
    steps = (np.arange(256) / 255.0) ** (eye.gamma * exposure.gamma) * 255.0
    toned = cv2.LUT(mixed, np.round(steps).astype(np.uint8))
    sigma = math.hypot(eye.blur, exposure.blur)
    soft = cv2.GaussianBlur(toned, (0, 0), sigma) if sigma > 0.2 else toned
    grain = draw.standard_normal(soft.shape, dtype=np.float32) * np.float32(eye.noise)
    noisy = soft + grain
    return np.asarray(np.clip(np.rint(noisy, out=noisy), 0, 255), np.uint8)


def _shaded(image: Image, across: float, down: float) -> Image:
    """Light that changes evenly over the picture."""
    height, width = image.shape[:2]
    light = 1 + across * np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    light = light + down * np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    return np.asarray(np.clip(image * light[..., None], 0, 255), np.uint8)


def _saturated(amount: float) -> NDArray[np.float64]:
    grey = np.tile(np.array([0.114, 0.587, 0.299]), (3, 1))
    mixed: NDArray[np.float64] = grey + amount * (np.eye(3) - grey)
    return mixed


def _turned(angle: float) -> NDArray[np.float64]:
    """A rotation of colours around the grey axis."""
    cos, sin, third = math.cos(angle), math.sin(angle), 1 / math.sqrt(3)
    cross = third * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turned: NDArray[np.float64] = cos * np.eye(3) + sin * cross + (1 - cos) / 3 * np.ones((3, 3))
    return turned
