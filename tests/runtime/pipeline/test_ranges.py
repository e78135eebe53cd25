"""A video cut into ranges gives the rows of the whole, whatever its container says of places."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.ranges import FOLDER, EmbedTask, join, split, unproven, video_of
from sa_runtime.pipeline.tasks import Settings, embed_task, tasks_of
from sa_runtime.runners.base import Runner
from sa_runtime.runners.opening import open_runner
from sa_runtime.sources.reader import VideoReader
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
BOXES = BoxOptions()


def task_of(clip: Clip, out: Path) -> EmbedTask:
    (task,) = tasks_of([clip.video], [clip.detections], out, resume=False)
    return task


def fill(tasks: list[EmbedTask], runner: Runner, settings: Settings) -> None:
    for task in tasks:
        done = embed_task(task, runner, settings)
        assert not done.error, done.error


def same_rows(folder: Path, alone: Path) -> None:
    mine, its = read_embeddings(folder), read_embeddings(alone)
    assert mine.rows == its.rows
    np.testing.assert_allclose(mine.vectors, its.vectors, atol=2e-6)


@pytest.mark.parametrize("frames", [7, 12, 39])
def test_ranges_give_the_rows_and_the_manifest_of_the_whole(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, frames: int
) -> None:
    task = task_of(clip, tmp_path / "cut")
    settings = Settings(model=tiny_model.path, batch_size=8)
    ranges = split(task, frames, boxes=BOXES)
    assert len(ranges) == -(-40 // frames)
    assert {one.whole for one in ranges} == {task}
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        fill(ranges, runner, settings)
        assert unproven(ranges) == []  # OpenCV's container led to the right frames
        join(ranges, video_of(task, camera=None, boxes=BOXES).identity())
        embed(
            task.source,
            runner,
            f"{tmp_path / 'alone'}/",
            detections=[clip.detections],
            batch_size=8,
        )
    same_rows(task.out, tmp_path / "alone")
    cut, alone = Manifest.read(task.out), Manifest.read(tmp_path / "alone")
    assert (cut.plan, cut.counts, cut.position) == (alone.plan, alone.counts, alone.position)
    assert (cut.complete, cut.rows) == (True, clip.boxes)
    assert not (task.out / FOLDER).exists()
    assert split(task, frames, boxes=BOXES) == [task]  # nothing is left to cut


def test_a_container_that_leads_elsewhere_is_found_out(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(clip, tmp_path / "cut")
    settings = Settings(model=tiny_model.path, batch_size=8)
    ranges = split(task, 10, boxes=BOXES)
    seek = VideoReader.seek

    def astray(self: VideoReader, number: int) -> None:
        """One frame off, for two of the three ranges that seek."""
        seek(self, number + (1 if number in (11, 21) else 0))
        self.decoded = number - 1

    monkeypatch.setattr(VideoReader, "seek", astray)
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        fill(ranges, runner, settings)
        again = unproven(ranges)
        assert (11, 21) in [one.frames for one in again]
        while again:
            assert not any(one.seek for one in again)
            fill(again, runner, settings)
            redone = {one.out: one for one in again}
            ranges = [redone.get(one.out, one) for one in ranges]
            again = unproven(ranges)
        join(ranges, video_of(task, camera=None, boxes=BOXES).identity())
        embed(task.source, runner, f"{tmp_path / 'alone'}/", detections=[clip.detections])
    same_rows(task.out, tmp_path / "alone")


def test_a_range_goes_on_where_it_stood(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> None:
    task = task_of(clip, tmp_path / "cut")
    settings = Settings(model=tiny_model.path, batch_size=8, shard_rows=20)
    ranges = split(task, 20, boxes=BOXES)
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        fill(ranges, runner, settings)
        second = ranges[1].out
        manifest = Manifest.read(second)
        assert len(manifest.shards) > 1
        before = manifest.rows
        # As a machine leaves it that is lost after the first file.
        first = read_embeddings(second / manifest.shards[0].file)
        for shard in manifest.shards[1:]:
            (second / shard.file).unlink()
        frame = first.rows.column("frame").to_pylist()[-1]
        kept = dataclasses.replace(manifest, shards=manifest.shards[:1], complete=False)
        kept.position = dataclasses.replace(manifest.position, source=0, done=frame, digest="")
        kept.counts = {**manifest.counts, "frames": 0}
        kept.write(second)
        fill([ranges[1]], runner, settings)
        assert Manifest.read(second).rows == before
        assert unproven(ranges) == []


def test_folders_and_short_videos_are_not_cut(clip: Clip, tmp_path: Path) -> None:
    task = task_of(clip, tmp_path)
    assert split(task, 40, boxes=BOXES) == [task]
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    (folder,) = tasks_of([images], [], tmp_path / "out", resume=False)
    assert split(folder, 1, boxes=BOXES) == [folder]
    with pytest.raises(InputError, match="only videos are cut"):
        video_of(folder, camera=None, boxes=BOXES)
