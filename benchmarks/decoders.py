"""Measures PyAV against OpenCV as what decodes videos: seeking, times, cut clips, rotation, speed.

Every frame of the drawn videos says its number in black and white squares, so that whatever a
decoder gives tells which frame it is. Needs ``av`` and ``imageio-ffmpeg``, whose FFmpeg writes the
files; a video of yours is timed beside them::

    python benchmarks/decoders.py people.mp4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

FRAMES, FPS, BITS, SIDE = 300, 25, 10, 32
HEIGHT, WIDTH = 96, BITS * SIDE
SEEKS, ROUNDS = 60, 5
CUT_S = 3.3

Numbers = list[int]


def picture(number: int) -> NDArray[np.uint8]:
    """The number in squares, over noise that makes key frames worth having."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    image[64:] = np.random.default_rng(number).integers(0, 255, (32, WIDTH, 1), np.uint8)
    for bit in range(BITS):
        image[:64, bit * SIDE : (bit + 1) * SIDE] = 255 * (number >> bit & 1)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    squares = image[16:48].reshape(32, BITS, SIDE, 3)[:, :, 8:24].mean(axis=(0, 2, 3))
    return sum(1 << bit for bit, value in enumerate(squares) if value > 127)


def ffmpeg(*words: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, words)]
    subprocess.run(command, check=True)


def write_videos(folder: Path) -> dict[str, Path]:
    raw = folder / "raw.bgr"
    raw.write_bytes(b"".join(picture(number).tobytes() for number in range(FRAMES)))
    given = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", FPS, "-i", raw]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3", "-g", "50"]
    videos = {name: folder / f"{name}" for name in ("constant.mp4", "uneven.mp4", "uneven.mkv")}
    ffmpeg(*given, *h264, videos["constant.mp4"])
    # Pauses that grow: frame n is shown at n/25 + (n/100)^2 seconds.
    uneven = [
        "-enc_time_base",
        "1/12800",
        "-vf",
        "settb=1/12800,setpts=(N/25+N*N/10000)/TB",
        "-fps_mode",
        "vfr",
    ]
    for name in ("uneven.mp4", "uneven.mkv"):
        ffmpeg(*given, *uneven, *h264, videos[name])
    videos["cut.mp4"] = folder / "cut.mp4"
    ffmpeg("-ss", CUT_S, "-i", videos["constant.mp4"], "-c", "copy", videos["cut.mp4"])
    videos["rotated.mp4"] = folder / "rotated.mp4"
    constant = videos["constant.mp4"]
    ffmpeg("-display_rotation", "90", "-i", constant, "-c", "copy", videos["rotated.mp4"])
    videos["interrupted.ts"] = folder / "interrupted.ts"
    ffmpeg("-i", constant, "-c", "copy", videos["interrupted.ts"])
    raw.unlink()
    return videos


class OpenCv:
    """What the sources use."""

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        self.announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames(self, *, convert: bool = True) -> Iterator[tuple[float, Any]]:
        while self._capture.grab():
            image = self._capture.retrieve()[1] if convert else None
            yield self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, image

    def at(self, index: int, times: list[float]) -> Any:
        """The frame of a number, by number."""
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        return self._capture.read()[1]


class PyAv:
    """PyAV with threads of FFmpeg, as OpenCV has them."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.announced = self._stream.frames

    def frames(self, *, convert: bool = True) -> Iterator[tuple[float, Any]]:
        for frame in self._container.decode(self._stream):
            yield float(frame.time), frame.to_ndarray(format="bgr24") if convert else None

    def at(self, index: int, times: list[float]) -> Any:
        """The frame of a number, by the time that reading the whole file gave it."""
        wanted = times[index]
        self._container.seek(round(wanted / self._stream.time_base), stream=self._stream)
        for frame in self._container.decode(self._stream):
            if frame.time >= wanted - 1e-6:
                return frame.to_ndarray(format="bgr24")
        return None


def exactness(path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for kind in (OpenCv, PyAv):
        reader = kind(path)
        read = list(reader.frames())
        times = [seconds for seconds, _ in read]
        rotated = bool(read) and read[0][1].shape[:2] != (HEIGHT, WIDTH)
        entry: dict[str, Any] = {"announced": reader.announced, "decoded": len(read)}
        if rotated:
            entry["first_frame_shape"] = list(read[0][1].shape)
        else:
            numbers = [number_of(image) for _, image in read]
            entry |= {"first": numbers[0], "in_order": numbers == sorted(set(numbers))}
            wanted = rng.integers(0, len(read), SEEKS).tolist()
            got = [kind(path).at(index, times) for index in wanted]
            right = [
                image is not None and number_of(image) == numbers[index]
                for image, index in zip(got, wanted, strict=True)
            ]
            entry["seeks_right"] = f"{sum(right)} of {len(right)}"
            if path.name.startswith("uneven"):
                truth = [number / 25 + number * number / 10000 for number in numbers]
                entry["largest_error_of_time_s"] = round(
                    float(np.abs(np.array(times) - times[0] - np.array(truth)).max()), 4
                )
        found[kind.__name__] = entry
    return found


def timed(path: Path, *, convert: bool) -> dict[str, float]:
    """Milliseconds a frame, the least of some rounds in turns."""
    kinds: list[Callable[[Path], Any]] = [OpenCv, PyAv]
    best = dict.fromkeys((kind.__name__ for kind in kinds), np.inf)
    for _ in range(ROUNDS):
        for kind in kinds:
            start = time.perf_counter()
            count = sum(1 for _ in kind(path).frames(convert=convert))
            took = 1000 * (time.perf_counter() - start) / count
            name = kind.__name__
            best[name] = min(best[name], took)
    return {name: round(float(value), 3) for name, value in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path, nargs="?")
    arguments = parser.parse_args()
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    with tempfile.TemporaryDirectory() as folder:
        videos = write_videos(Path(folder))
        report: dict[str, Any] = {name: exactness(path) for name, path in videos.items()}
        timing = [videos["constant.mp4"], *([arguments.video] if arguments.video else [])]
        report["ms_a_frame"] = {
            path.name: {
                "converted": timed(path, convert=True),
                "passed over": timed(path, convert=False),
            }
            for path in timing
        }
    report["versions"] = {"opencv": cv2.__version__, "av": av.__version__}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
