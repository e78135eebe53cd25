"""Decoding: the frames one asks for, with their numbers and times."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from sa_runtime.arrays import Image
from sa_runtime.errors import InputError, MissingFileError, VideoError
from sa_runtime.sources.mp4 import shown_frames

_FFMPEG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"
_SILENT = 0
"""OpenCV's level of logging at which nothing is printed."""


class Frame(NamedTuple):
    """One decoded frame: number from 1, seconds since the start, (H, W, 3) uint8 BGR.

    The seconds are ``None`` where the file has no times.
    """

    number: int
    timestamp_s: float | None
    image: Image


class VideoReader:
    """A video file, read once from its start.

    Args:
        path: anything OpenCV opens.

    Attributes:
        announced: frames its container announces and shows, 0 where it does not say.
        size: width and height of its frames.
        fps: frames a second, 0 where it does not say.
        decoded: frames passed so far.
        ended: whether the end of what can be decoded was reached.

    Raises:
        MissingFileError: no such file.
        VideoError: one that OpenCV cannot open.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFileError(f"{path}: no such file; expected a video", path=path)
        # Absolute, since FFmpeg takes what stands before a colon for a protocol.
        self._place = os.path.abspath(path)
        self._timed = not _is_bare_stream(self.path)
        self._capture = cv2.VideoCapture(self._place)
        if not self._capture.isOpened():
            raise VideoError(
                f"{path}: cannot be opened as a video (damaged, or of a codec unknown here); "
                "check it with `ffprobe`, or convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
            )
        announced = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.announced = shown_frames(self.path, announced)
        self.fps = max(float(self._capture.get(cv2.CAP_PROP_FPS)), 0.0)
        width, height = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        self.size = int(self._capture.get(width)), int(self._capture.get(height))
        self.decoded = 0
        self.ended = False

    @property
    def truncated(self) -> bool:
        """Whether decoding ended before the frame count that the container announces."""
        return self.ended and self.decoded < self.announced

    def frames(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of these numbers; the others are passed over without being converted.

        Stops at the last number asked for, or where nothing more can be decoded; :attr:`ended`
        tells which.

        Args:
            numbers: ascending, from 1, after those already read.

        Raises:
            VideoError: a frame that was found but cannot be converted.
            InputError: a number before one already read.
        """
        for number in numbers:
            if number < self.decoded:
                raise InputError(
                    f"{self.path}: frame {number} after frame {self.decoded}; expected ascending "
                    "`numbers`"
                )
            while self.decoded < number:
                if not self._capture.grab():
                    self.ended = True
                    return
                self.decoded += 1
            found, image = self._capture.retrieve()
            if not found:
                raise VideoError(f"{self.path}: frame {number} cannot be converted to an image")
            yield Frame(number, self._timestamp_s(), np.asarray(image, np.uint8))

    def skip_to(self, number: int, digest: str) -> None:
        """Stand just behind a frame that was read before, where the container leads to it.

        Containers may lead elsewhere, by a wrong index or an uneven frame rate. Unless the very
        frame is found, the reader stays at its start and :meth:`frames` decodes its way there.

        Args:
            number: of the frame.
            digest: of the frame, from :func:`frame_digest`.
        """
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - 1)
        found, image = self._capture.read()
        self.decoded = number
        if found and frame_digest(np.asarray(image, np.uint8), self._timestamp_s()) == digest:
            return
        self._capture.release()
        self._capture = cv2.VideoCapture(self._place)
        self.decoded = 0

    def seek(self, number: int) -> None:
        """Stand just before a frame, where the container says that it is.

        It may be wrong; :class:`sa_runtime.sources.range.RangeSource` finds out.
        """
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - 1)
        self.decoded = number - 1

    def close(self) -> None:
        """Free the decoder; closing twice is allowed."""
        self._capture.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _timestamp_s(self) -> float | None:
        """The container's time of the frame, or its number over the frame rate.

        A bare stream has neither; FFmpeg makes 25 frames a second of it.
        """
        if not self._timed:
            return None
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if seconds <= 0 and self.fps > 0:
            seconds = (self.decoded - 1) / self.fps
        return float(seconds)


def _is_bare_stream(path: Path) -> bool:
    """Whether a file is what an encoder gave (H.264, HEVC, MPEG), in no container."""
    with path.open("rb") as file:
        head = file.read(4)
    # A start code; 0xBA is that of the pack of a program stream, which has times.
    return head == b"\0\0\0\1" or (head[:3] == b"\0\0\1" and head[3:] != b"\xba")


def frame_digest(image: Image, timestamp_s: float | None) -> str:
    """What tells a frame from the others of its video, those that look the same included.

    Args:
        image: (H, W, 3) uint8.
        timestamp_s: of the frame, if it has any.
    """
    seconds = "" if timestamp_s is None else f"{timestamp_s:.6f}"
    digest = hashlib.sha256(f"{seconds} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from printing; what went wrong is in the errors raised.

    FFmpeg's level is read when the process opens its first video, and stays.
    """
    before = os.environ.get(_FFMPEG_LEVEL)
    os.environ.setdefault(_FFMPEG_LEVEL, "-8")
    # Before OpenCV 4.13 the wheels have these functions in cv2 itself.
    logging: Any = getattr(cv2.utils, "logging", cv2)
    level = logging.getLogLevel()
    logging.setLogLevel(_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
        if before is None:
            del os.environ[_FFMPEG_LEVEL]
