"""What a synthetic world is made of, and how every random draw in it is seeded."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from sa_runtime.errors import bad_value

MAX_IDENTITIES = 9999
"""Market-1501 names give an identity four digits, and 0000 means distractor."""
MAX_CAMERAS = 9
"""Market-1501 readers expect one digit for the camera."""
MAX_IMAGES = 99
"""Market-1501 names give the box two digits."""

STREAMS = {
    "split": 1,
    "person": 2,
    "camera": 3,
    "scene": 4,
    "sequence": 5,
    "image": 6,
    "distractor": 7,
    "junk": 8,
    "walk": 9,
    "frame": 10,
    "cast": 11,
    "outfit": 12,
}


def rng(seed: int, stream: str, *key: int) -> np.random.Generator:
    """An independent generator per thing drawn, so that order and workers do not matter.

    Args:
        seed: of the world.
        stream: what is drawn, a key of :data:`STREAMS`.
        key: which one, for example identity, camera and image.

    >>> float(rng(1, "person", 5).random()) == float(rng(1, "person", 5).random())
    True
    """
    return np.random.default_rng([seed, STREAMS[stream], *key])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and seed of a synthetic world.

    Attributes:
        seed: the same seed and sizes give the same bytes.
        identities: people with an id, training and test together.
        cameras: cameras, each of which sees every identity.
        images_per_camera: crops per identity and camera; in the test split the first is a query.
        train_fraction: share of the identities in the training split.
        distractors: gallery crops of nobody in the data set (id 0000).
        junk: gallery crops too badly cut to count (id -1).
        videos: videos, of cameras 1 to ``videos``.
        video_seconds: length of each video.
        people_per_video: people of the test split who walk through each video, the same in all.
        fps: frames per second of the videos.
        frame_width: of the cameras, in pixels.
        frame_height: of the cameras, in pixels.
        image_width: of the crops, in pixels.
        image_height: of the crops, in pixels.
    """

    seed: int = 0
    identities: int = 200
    cameras: int = 6
    images_per_camera: int = 4
    train_fraction: float = 0.5
    distractors: int = 200
    junk: int = 100
    videos: int = 2
    video_seconds: float = 8.0
    people_per_video: int = 6
    fps: int = 12
    frame_width: int = 768
    frame_height: int = 432
    image_width: int = 64
    image_height: int = 128

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        for field, low, high in (
            ("seed", 0, 2**32 - 1),
            ("identities", 2, MAX_IDENTITIES),
            ("cameras", 2, MAX_CAMERAS),
            ("images_per_camera", 2, MAX_IMAGES),
            ("distractors", 0, 999_999),
            ("junk", 0, 999_999),
            ("videos", 0, self.cameras),
            ("fps", 1, 60),
            ("frame_width", 320, 3840),
            ("frame_height", 180, 2160),
            ("image_width", 16, 1024),
            ("image_height", 32, 2048),
        ):
            self._check(field, low, high, int)
        self._check("train_fraction", 0.0, 1.0, float)
        if not 1 <= self.train_identities < self.identities:
            raise bad_value(
                "train_fraction",
                self.train_fraction,
                f"leaves {self.train_identities} of {self.identities} identities to train on; "
                "expected at least one in each split",
            )
        for field in ("frame_width", "frame_height"):
            if getattr(self, field) % 2:
                rule = "expected an even number, as MPEG-4 needs it"
                raise bad_value(field, getattr(self, field), rule)
        self._check("video_seconds", 0.1, 3600.0, float)
        if self.videos:
            self._check("people_per_video", 1, self.test_identities, int)

    @property
    def train_identities(self) -> int:
        """Number of identities of the training split."""
        return round(self.identities * self.train_fraction)

    @property
    def test_identities(self) -> int:
        """Number of identities of the test split."""
        return self.identities - self.train_identities

    @property
    def frames(self) -> int:
        """Frames of each video."""
        return max(1, round(self.video_seconds * self.fps))

    def split(self) -> tuple[list[int], list[int]]:
        """Training and test identities, 1 to ``identities``, each sorted.

        >>> train, test = SyntheticConfig(identities=10, people_per_video=2).split()
        >>> len(train), len(test), sorted(train + test) == list(range(1, 11))
        (5, 5, True)
        """
        order = rng(self.seed, "split").permutation(self.identities) + 1
        cut = self.train_identities
        return sorted(order[:cut].tolist()), sorted(order[cut:].tolist())

    def _check(self, field: str, low: float, high: float, kind: type) -> None:
        value = getattr(self, field)
        expected = f"expected {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            raise bad_value(field, value, f"{expected}, a number of type {kind.__name__}")
        if not (math.isfinite(value) and low <= value <= high):
            raise bad_value(field, value, expected)
