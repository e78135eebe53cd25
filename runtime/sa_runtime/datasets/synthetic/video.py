"""Videos of the test split's people, with ground truth in MOTChallenge's format."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from sa_runtime.datasets.synthetic.cameras import Camera, Exposure, Image, camera, develop
from sa_runtime.datasets.synthetic.config import SyntheticConfig, rng
from sa_runtime.datasets.synthetic.people import Person, person
from sa_runtime.datasets.synthetic.scenes import scene
from sa_runtime.datasets.synthetic.shots import Box, Placed, Pose, blend, heading, place, shadow
from sa_runtime.errors import VideoError

MIN_INSIDE = 0.3
"""Boxes of which a smaller share lies inside the frame are left out of the ground truth."""
MIN_SEEN = 0.15
"""People of whom a smaller share is not hidden by others are left out of the ground truth."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """One person in one frame."""

    person: int
    box: Box


@dataclasses.dataclass
class Walker:
    """A person on their way; distances in metres, angles in radians."""

    who: Person
    x_m: float
    distance_m: float
    heading: float
    facing: float
    speed_mps: float
    phase: float

    def step(self, eye: Camera, seconds: float) -> None:
        """Walk on, and turn round at the borders of the place."""
        self.x_m += math.sin(self.heading) * self.speed_mps * seconds
        self.distance_m -= math.cos(self.heading) * self.speed_mps * seconds
        reach = eye.half_width_m(self.distance_m) + 0.5
        if abs(self.x_m) > reach and self.x_m * math.sin(self.heading) > 0:
            self.heading = -self.heading
        outward = math.cos(self.heading)
        if (self.distance_m < eye.near_m and outward > 0) or (
            self.distance_m > eye.far_m and outward < 0
        ):
            self.heading = math.pi - self.heading
        turn = (self.heading - self.facing + math.pi) % (2 * math.pi) - math.pi
        self.facing += turn * min(1.0, 5 * seconds)
        stride_m = 1.45 * self.who.gait * self.who.height_m / 1.75
        self.phase += 2 * math.pi * self.speed_mps * seconds / stride_m

    def pose(self) -> Pose:
        """Where the walker is now."""
        return Pose(x_m=self.x_m, distance_m=self.distance_m, heading=self.facing, phase=self.phase)


def cast_of(config: SyntheticConfig) -> list[int]:
    """The test identities that walk through the videos, the same in all of them."""
    _, test = config.split()
    picked = rng(config.seed, "walk").permutation(len(test))[: config.people_per_video]
    return sorted(test[at] for at in picked)


def frames(config: SyntheticConfig, index: int) -> Iterator[tuple[Image, list[Truth]]]:
    """The frames of camera ``index``'s video with who is where.

    Yields:
        (frame height, frame width, 3) uint8 BGR and the people seen in it.
    """
    eye = camera(config, index)
    walkers = [_walker(config, eye, number) for number in cast_of(config)]
    exposure = Exposure()
    for at in range(config.frames):
        canvas = scene(config, index).copy()
        poses = [walker.pose() for walker in walkers]
        for pose in poses:
            shadow(canvas, pose, eye)
        order = sorted(range(len(walkers)), key=lambda k: -poses[k].distance_m)
        layers = [place(walkers[k].who, poses[k], eye) for k in order]
        for layer in layers:
            blend(canvas, layer)
        numbers = [walkers[k].who.number for k in order]
        yield (
            develop(canvas, eye, exposure, rng(config.seed, "frame", index, at)),
            truths(numbers, layers, config.frame_width, config.frame_height),
        )
        for walker in walkers:
            walker.step(eye, 1 / config.fps)


def truths(
    numbers: Sequence[int], layers: Sequence[Placed], width: int, height: int
) -> list[Truth]:
    """The boxes of people laid over each other in this order, clipped to the frame.

    Who is nearly out of the frame (:data:`MIN_INSIDE`) or nearly hidden (:data:`MIN_SEEN`) is
    left out.
    """
    owner = np.full((height, width), -1, np.int32)
    area = []
    for position, layer in enumerate(layers):
        box = layer.box.clipped(width, height)
        x0, y0, x1, y1 = int(box.left), int(box.top), int(box.right), int(box.bottom)
        solid = (
            layer.alpha[y0 - layer.top : y1 - layer.top, x0 - layer.left : x1 - layer.left] > 0.5
        )
        owner[y0:y1, x0:x1][solid] = position
        area.append(int(solid.sum()))
    seen = np.bincount(owner[owner >= 0], minlength=len(layers))
    found = []
    for position, (number, layer) in enumerate(zip(numbers, layers, strict=True)):
        box = layer.box.clipped(width, height)
        inside = box.width * box.height / (layer.box.width * layer.box.height)
        if inside >= MIN_INSIDE and seen[position] >= max(1.0, MIN_SEEN * area[position]):
            found.append(Truth(number, box))
    return sorted(found, key=lambda truth: truth.person)


def write_video(folder: Path, config: SyntheticConfig, index: int) -> int:
    """Write ``cN.mp4`` and ``cN.gt.txt`` of camera ``index``; returns the number of frames.

    Raises:
        VideoError: this build of OpenCV cannot write MPEG-4.
    """
    path = folder / f"c{index + 1}.mp4"
    size = (config.frame_width, config.frame_height)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(config.fps), size)
    if not writer.isOpened():
        raise VideoError(
            f"{path}: this build of OpenCV cannot write MPEG-4 video; install "
            "opencv-python-headless from PyPI, or make the data set with `videos=0`"
        )
    lines = []
    try:
        for at, (frame, people) in enumerate(frames(config, index), start=1):
            writer.write(frame)
            for truth in people:
                b = truth.box
                lines.append(
                    f"{at},{truth.person},{b.left:g},{b.top:g},{b.width:g},{b.height:g},1,-1,-1,-1"
                )
    finally:
        writer.release()
    path.with_suffix(".gt.txt").write_text("".join(f"{line}\n" for line in lines))
    return config.frames


def _walker(config: SyntheticConfig, eye: Camera, number: int) -> Walker:
    draw = rng(config.seed, "walk", eye.index, number)
    distance = float(draw.uniform(eye.near_m, eye.far_m))
    reach = eye.half_width_m(distance) * 0.9
    way = heading(eye, draw) + float(draw.normal(0, 0.4))
    who = person(config.seed, number)
    return Walker(
        who=who,
        x_m=float(draw.uniform(-reach, reach)),
        distance_m=distance,
        heading=way,
        facing=way,
        speed_mps=float(draw.uniform(1.0, 1.5)) * who.gait,
        phase=float(draw.uniform(0, 2 * math.pi)),
    )
