from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.errors import InputError, VideoError
from sa_runtime.sources.reader import VideoReader, frame_digest, quiet_opencv


def write_video(path: Path, frames: int, *, codec: str = "mp4v", fps: float = 20.0) -> Path:
    """Frames of one grey level each, ten apart, so that a frame tells its number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    for number in range(1, frames + 1):
        writer.write(np.full((48, 64, 3), level(number), np.uint8))
    writer.release()
    return path


def level(number: int) -> int:
    return 20 + 10 * (number % 20)


def test_frames_carry_their_numbers_times_and_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 15)
    with VideoReader(path) as video:
        assert (video.announced, video.fps) == (15, 20.0)
        frames = list(video.frames(range(1, 16)))
        assert not video.ended
    assert [frame.number for frame in frames] == list(range(1, 16))
    assert [f.timestamp_s for f in frames] == pytest.approx([n / 20 for n in range(15)])
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert abs(float(frame.image.mean()) - level(frame.number)) < 4


def test_only_the_frames_asked_for_come_and_the_rest_is_left(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", 30)) as video:
        frames = list(video.frames([4, 9, 10]))
        assert [frame.number for frame in frames] == [4, 9, 10]
        assert frames[1].timestamp_s == pytest.approx(8 / 20)
        assert [round(float(f.image.mean()) / 10) * 10 for f in frames] == [60, 110, 120]
        assert (video.decoded, video.ended) == (10, False)
        assert [frame.number for frame in video.frames([12])] == [12]


def test_numbers_that_go_back_are_refused(tmp_path: Path) -> None:
    with (
        VideoReader(write_video(tmp_path / "a.mp4", 9)) as video,
        pytest.raises(InputError, match="frame 2 after frame 5; expected ascending"),
    ):
        list(video.frames([5, 2]))


def test_frames_after_the_end_are_not_there(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", 5)) as video:
        assert [frame.number for frame in video.frames([5, 6, 900])] == [5]
        assert (video.decoded, video.ended, video.truncated) == (5, True, False)


def test_a_cut_video_gives_its_beginning_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 40, codec="MJPG").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    with quiet_opencv(), VideoReader(cut) as video:
        frames = list(video.frames(range(1, 41)))
        assert 3 < len(frames) < 40
        assert video.decoded == len(frames)
        assert (video.announced, video.ended, video.truncated) == (40, True, True)
    assert all(abs(float(f.image.mean()) - level(f.number)) < 4 for f in frames)


def test_frames_are_arrays_of_their_own(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", 3)) as video:
        frames: list[NDArray[np.uint8]] = [frame.image for frame in video.frames([1, 2, 3])]
    assert not np.shares_memory(frames[0], frames[1])
    assert frames[0].mean() < frames[1].mean() < frames[2].mean()


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4: no such file"):
        VideoReader(tmp_path / "absent.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    logging = getattr(cv2.utils, "logging", cv2)
    before = logging.getLogLevel()
    with quiet_opencv(), pytest.raises(VideoError, match=r"text\.mp4: cannot be opened as a video"):
        VideoReader(text)
    assert logging.getLogLevel() == before


def test_opencv_and_ffmpeg_can_be_kept_quiet(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    loud = (
        "import sys, contextlib; from sa_runtime.errors import VideoError\n"
        "from sa_runtime.sources.reader import VideoReader, frame_digest, quiet_opencv\n"
        "with contextlib.{context}, contextlib.suppress(VideoError): VideoReader(sys.argv[1])"
    )
    printed = {}
    for context in ("nullcontext()", "nullcontext(), quiet_opencv()"):
        # FFmpeg reads its level once a process.
        command = [sys.executable, "-c", loud.format(context=context), str(text)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        printed[context] = run.stderr
    assert "moov atom not found" in printed["nullcontext()"]
    assert printed["nullcontext(), quiet_opencv()"] == ""


@pytest.mark.parametrize("codec", ["mp4v", "MJPG"])
def test_a_frame_read_before_is_found_again_at_once(tmp_path: Path, codec: str) -> None:
    path = tmp_path / ("a.mp4" if codec == "mp4v" else "a.avi")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for number in range(1, 91):  # the last ones look the same
        writer.write(still if number > 80 else rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    with VideoReader(path) as video:
        whole = list(video.frames(range(1, 91)))
    for number in (1, 17, 80, 85, 90):
        last = whole[number - 1]
        with VideoReader(path) as video:
            video.skip_to(number, frame_digest(last.image, last.timestamp_s))
            assert video.decoded == number
            for found, expected in zip(
                video.frames(range(number + 1, 91)), whole[number:], strict=True
            ):
                assert found[:2] == pytest.approx(expected[:2])
                np.testing.assert_array_equal(found.image, expected.image)


def test_a_frame_that_is_not_found_is_decoded_to(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for number in range(1, 31):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()
    with VideoReader(path) as video:
        whole = list(video.frames(range(1, 31)))
    wrong = whole[20]
    with VideoReader(path) as video:
        video.skip_to(20, frame_digest(wrong.image, wrong.timestamp_s))
        assert video.decoded == 0
        found = list(video.frames([21, 30]))
    assert [frame.number for frame in found] == [21, 30]
    for frame in found:
        np.testing.assert_array_equal(frame.image, whole[frame.number - 1].image)


@pytest.mark.parametrize("name", ["cam:1.mp4", "10:30:00.mp4", "clip%02d.mp4", "a [1] é.mp4"])
def test_any_name_is_opened_and_kept_as_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", 4).rename(tmp_path / name)
    with VideoReader(name) as video:
        assert len(list(video.frames([1, 3]))) == 2
        assert str(video.path) == name


def test_a_bare_stream_has_no_times(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"XVID"), 10, (64, 48))
    for level in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    data = (tmp_path / "a.avi").read_bytes()
    at, stream = data.index(b"movi") + 4, b""
    while data[at : at + 4] == b"00dc":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        stream += data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    (tmp_path / "a.m4v").write_bytes(stream)
    with VideoReader(tmp_path / "a.m4v") as video:
        frames = list(video.frames([1, 4]))
    assert [(frame.number, frame.timestamp_s) for frame in frames] == [(1, None), (4, None)]


def test_a_clip_that_shows_part_of_its_frames_is_whole(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for level in range(0, 200, 10):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    edits = data.index(b"elst") + 4
    data[edits + 8 : edits + 12] = (1200).to_bytes(4, "big")  # of 2000 ms
    (tmp_path / "cut.mp4").write_bytes(data)
    with VideoReader(tmp_path / "cut.mp4") as video:
        assert video.announced == 12
        assert len(list(video.frames(range(1, 21)))) == 12
        assert video.ended
        assert not video.truncated
