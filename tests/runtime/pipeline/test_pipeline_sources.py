"""Folders of images and videos through the pipeline: rows, order, damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sa_runtime.detections.table import read_detections
from sa_runtime.errors import InputError, VideoError
from sa_runtime.items import Counts, Row
from sa_runtime.pipeline.stages import PipelineResult, run_pipeline
from sa_runtime.runners.base import BaseRunner
from sa_runtime.sources.images import ImageSource, find_images
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.video import VideoSource
from tests.clip import Clip
from tests.runtime.pipeline.test_pipeline import Collected

pytest_plugins = ("tests.tiny_onnx",)


def write_images(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (40 + i, 20, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return sorted(folder.rglob("*.png"))


def test_folders_are_searched_below_and_sorted(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 4)
    (tmp_path / "0" / "note.txt").write_text("x")
    (tmp_path / "1" / "Last.JPEG").write_bytes(b"x")
    assert find_images(tmp_path) == sorted([*paths, tmp_path / "1" / "Last.JPEG"])
    (tmp_path / "empty.jpg").mkdir()
    with pytest.raises(
        InputError, match=r"empty\.jpg: no images below it; expected files .*\.webp"
    ):
        find_images(tmp_path / "empty.jpg")


def test_images_become_rows_of_their_whole_size(runner: BaseRunner, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 5)
    paths[2].write_bytes(b"torn")
    counts = Counts()
    skipped: list[str] = []
    sink = Collected()
    source = ImageSource(paths=tuple(paths), strict=False, camera="door")
    items = source.items(counts, on_skip=lambda error: skipped.append(str(error)))
    run_pipeline(items, runner, sink, batch_size=2)
    kept = [path for path in paths if path != paths[2]]
    assert [(r.source, r.camera, r.frame, r.track_id) for r in sink.rows] == [
        (str(path), "door", None, None) for path in kept
    ]
    sizes = [(r.left, r.top, r.width, r.height) for r in sink.rows]
    assert sizes == [(0, 0, 20, 40 + int(path.stem)) for path in kept]
    assert (counts.images, counts.unreadable_images) == (4, 1)
    assert len(skipped) == 1
    assert str(paths[2]) in skipped[0]
    with pytest.raises(InputError, match=r"not a whole image"):
        list(ImageSource(paths=tuple(paths)).items(Counts()))


def write_video(path: Path, frames: int, codec: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for number in range(1, frames + 1):
        writer.write(np.full((48, 64, 3), 20 + 10 * (number % 20), np.uint8))
    writer.release()
    return path


def embed_video(
    runner: BaseRunner, video: Path, text: str
) -> tuple[Collected, Counts, PipelineResult]:
    path = video.with_suffix(".txt")
    path.write_text(text)
    counts, sink = Counts(), Collected()
    source = VideoSource(path=video, detections=read_detections(path), camera="north")
    with quiet_opencv():
        return sink, counts, run_pipeline(source.items(counts), runner, sink, batch_size=4)


def test_a_video_gives_its_boxes_in_order_of_frames(runner: BaseRunner, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 20, "mp4v")
    text = (
        "12,2,1,2,10,20,0.5\n3,1,0,0,64,48\n3,-1,60,40,30,30\n"
        "12,3,200,200,5,5\n12,4,5,5,0,5\n25,1,1,1,5,5\n"
    )
    sink, counts, result = embed_video(runner, video, text)
    times = [row.timestamp_s for row in sink.rows]
    assert times == pytest.approx([0.2, 0.2, 1.1])
    assert sink.rows == [
        Row(str(video), 3, times[0], 1, 0, 0, 64, 48, 1, "north"),
        Row(str(video), 3, times[1], None, 60, 40, 30, 30, 1, "north"),
        Row(str(video), 12, times[2], 2, 1, 2, 10, 20, 0.5, "north"),
    ]
    assert counts == Counts(frames=2, invalid_boxes=1, beyond_end=1)
    assert (result.outside, result.rows) == (1, 3)
    grey = np.full((3, 32, 16, 3), [[[[50]]], [[[50]]], [[[140]]]], np.uint8)
    assert (sink.vectors @ runner.run(grey).T).diagonal().min() > 0.99


def test_a_cut_video_keeps_what_comes_before(runner: BaseRunner, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 40, "MJPG").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    text = "".join(f"{number},1,5,5,20,30\n" for number in range(1, 41))
    sink, counts, _ = embed_video(runner, cut, text)
    decoded = len(sink.rows)
    assert 3 < decoded < 40
    assert [r.frame for r in sink.rows] == list(range(1, decoded + 1))
    assert counts.beyond_end == 40 - decoded
    assert counts.truncated_videos == [f"{cut}: ends at frame {decoded} of 40"]


def test_an_unreadable_video_is_an_error(runner: BaseRunner, tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_text("hello")
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be opened as a video"):
        embed_video(runner, video, "1,1,1,1,5,5\n")


def test_a_video_gives_every_detection(runner: BaseRunner, clip: Clip) -> None:
    counts, sink = Counts(), Collected()
    source = VideoSource(path=clip.video, detections=read_detections(clip.detections))
    result = run_pipeline(source.items(counts), runner, sink)
    assert result.rows == len(sink.rows) == clip.boxes > 300
    assert len({r.track_id for r in sink.rows}) == clip.tracks
    assert np.isfinite(sink.vectors).all()
    np.testing.assert_allclose(np.linalg.norm(sink.vectors, axis=1), 1, atol=1e-5)
    assert [r.frame for r in sink.rows] == sorted(r.frame or 0 for r in sink.rows)
    for r in sink.rows:
        assert r.timestamp_s == pytest.approx(((r.frame or 0) - 1) / clip.fps)
