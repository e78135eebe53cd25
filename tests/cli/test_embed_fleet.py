"""Embedding on real Ray workers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.outputs.manifest import Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.tasks import Settings, embed_task, tasks_of
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
FRAMES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of noise with boxes, a folder of images, and one of which no image is whole."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        writer = cv2.VideoWriter(
            str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)
        )
        for _ in range(FRAMES):
            writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        writer.release()
        left = -5 if name == "a" else 5
        lines = [f"{number},1,{left},2,20,40\n" for number in range(1, FRAMES + 1)]
        (folder / f"{name}.txt").write_text("".join(lines))
    for name in ("images", "torn"):
        (folder / name).mkdir()
    for seed in range(5):
        image = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
        (folder / "images" / f"{seed}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "torn" / "0.png").write_bytes(b"torn")
    (folder / "torn.avi").write_bytes((folder / "a.avi").read_bytes()[:100])
    (folder / "torn.txt").write_text("1,1,5,2,20,40\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def left_cluster() -> Iterator[None]:
    """What another program left: the address of a cluster that is gone."""
    # Not a folder of the test's own: names of sockets may be 107 characters long.
    with (
        TemporaryDirectory(prefix="ray-", dir="/tmp") as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(place) / "ray").mkdir()
        (Path(place) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        patch.setenv("RAY_TMPDIR", place)
        yield


def embed(model: TinyModel, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sa_deploy", "embed", model.path, *arguments, "--json"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_workers_write_what_one_process_writes(
    tiny_model: TinyModel, folder: Path, tmp_path: Path
) -> None:
    videos = [folder / "a.avi", folder / "b.avi"]
    boxes = ["--detections", folder / "a.txt", "--detections", folder / "b.txt"]
    torn = [folder / "torn.avi", "--detections", folder / "torn.txt"]
    sources = [videos[0], folder / "images", folder / "torn", videos[1]]
    fleet = ["--runtime", "onnxruntime", "--ray-workers", 2]
    words = (*sources, *boxes, *torn)
    result = embed(tiny_model, *words, "--out", tmp_path / "fleet", *fleet)
    # The damaged sources are told of, and cost the others nothing.
    assert result.returncode == 4, result.stderr
    assert "2 of 5 sources are not complete, torn for one; mend what is said" in result.stderr
    assert "none of 1 images could be decoded" in result.stderr
    assert f"not complete: {torn[0]}: cannot be opened as a video" in result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert [source["rows"] for source in report["sources"]] == [FRAMES, 5, 0, FRAMES, 0]
    clipped, others = [FRAMES, 0, None, 0, None], [0, 1, None, 0, None]
    assert [source.get("boxes_clipped") for source in report["sources"]] == clipped
    assert [source.get("other_files") for source in report["sources"]] == others
    for video, detections in zip(videos, boxes[1::2], strict=True):
        alone = tmp_path / f"{video.stem}.parquet"
        command = (video, "--detections", detections, "--out", alone, "--runtime", "onnxruntime")
        assert embed(tiny_model, *command).returncode == 0
        found = read_embeddings(tmp_path / "fleet" / video.name)
        np.testing.assert_allclose(found.vectors, read_embeddings(alone).vectors, atol=1e-6)
        assert Manifest.read(tmp_path / "fleet" / video.name).complete

    refused = embed(tiny_model, *videos, *boxes, "--out", tmp_path / "fleet", *fleet)
    assert refused.returncode == 2
    assert "holds rows of an earlier run; go on with it with --resume" in refused.stderr


@pytest.mark.slow
def test_workers_share_a_video_by_ranges_of_its_frames(
    tiny_model: TinyModel, folder: Path, tmp_path: Path
) -> None:
    sources = [folder / "a.avi", folder / "images", "--detections", folder / "a.txt"]
    sources += [folder / "torn.avi", "--detections", folder / "torn.txt"]
    words = ["--ray-workers", 2, "--split-frames", 11, "--runtime", "onnxruntime"]
    result = embed(tiny_model, *sources, "--out", tmp_path / "fleet", *words)
    assert result.returncode == 4, result.stderr
    assert f"not complete: {folder / 'torn.avi'}: cannot be opened as a video" in result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert [source["rows"] for source in report["sources"]] == [FRAMES, 5, 0]
    assert report["sources"][0]["boxes_clipped"] == FRAMES
    alone = tmp_path / "alone.parquet"
    done = embed(tiny_model, sources[0], *sources[2:4], "--out", alone, "--runtime", "onnxruntime")
    assert done.returncode == 0
    mine, its = read_embeddings(tmp_path / "fleet" / "a.avi"), read_embeddings(alone)
    assert mine.rows == its.rows
    np.testing.assert_allclose(mine.vectors, its.vectors, atol=1e-6)
    refused = embed(tiny_model, *sources, "--out", tmp_path / "x", "--split-frames", 11)
    assert refused.returncode == 2
    assert "--split-frames 11: one process reads them whole; give --ray-workers" in refused.stderr


def test_a_source_goes_on_where_it_stood(
    tiny_model: TinyModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detections = [folder / "a.txt"]
    (task,) = tasks_of([folder / "a.avi"], detections, tmp_path, resume=False)
    settings = Settings(model=tiny_model.path, batch_size=4, shard_rows=10)
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        with monkeypatch.context() as patch:
            run, runs = runner.run, iter(range(5))

            def stopping(images: Images) -> Embeddings:
                if next(runs, None) is None:
                    raise RunnerError("the machine is gone")
                return run(images)

            patch.setattr(runner, "run", stopping)
            stopped = embed_task(task, runner, settings)
        assert stopped.error == "the machine is gone"
        assert stopped.rows == 10
        (again,) = tasks_of([folder / "a.avi"], detections, tmp_path, resume=True)
        done = embed_task(again, runner, settings)
    assert (done.error, done.rows) == ("", FRAMES)
    assert len(read_embeddings(task.out).vectors) == FRAMES


def test_sources_that_cannot_be_shared_out_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.png: one image cannot be shared out; pass the fold"):
        tasks_of([folder / "images" / "0.png"], [], tmp_path, resume=False)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"both would be written to .*; embed them one after"):
        tasks_of([folder / "images", tmp_path / "images"], [], tmp_path / "out", resume=False)


@pytest.mark.slow
def test_a_ray_that_does_not_start_is_no_defect(
    tiny_model: TinyModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Path("/tmp") / ("x" * 110)  # names of sockets may be 107 characters long
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    words = ["--out", tmp_path / "out", "--ray-workers", 1, "--runtime", "onnxruntime"]
    try:
        done = embed(tiny_model, folder / "images", *words)
    finally:
        shutil.rmtree(long, ignore_errors=True)
    assert done.returncode == 2
    assert "Ray does not start here: " in done.stderr
    assert "pass --ray-address auto" in done.stderr


def test_a_damaged_video_hides_no_missing_one(folder: Path, tmp_path: Path) -> None:
    boxes, torn = folder / "torn.txt", folder / "torn.avi"
    (task,) = tasks_of([torn], [boxes], tmp_path / "out", resume=False)
    assert task.source == torn.resolve()
    with pytest.raises(InputError, match=r"absent\.avi: no such file"):
        tasks_of([torn, folder / "absent.avi"], [boxes, boxes], tmp_path / "out", resume=False)


LOST = """
import os, signal, sys
from pathlib import Path
import ray
from sa_runtime.pipeline.ranges import EmbedTask
from sa_runtime.pipeline.ray import share_out
from sa_runtime.pipeline.tasks import TaskResult
from sa_runtime.system.ray_cluster import connected

@ray.remote(num_cpus=1, max_restarts=1, max_task_retries=1)
class Worker:
    def embed(self, task):
        if task.source.name == "kills":
            os._exit(1)
        if task.source.name == "raises":
            raise OSError(28, "No space left on device")
        return TaskResult(task=task, rows=3)

tasks = [EmbedTask(source=Path(name), detections=None, out=Path("/absent") / name)
         for name in ("a", "kills", "b", "raises", "c", "kills", "d")]
signal.signal(signal.SIGTERM, lambda *_: None)
stops = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
with connected(None, purpose="a test") as ray:
    for done in share_out(ray, tasks, Worker.remote, workers=2):
        with open(sys.argv[1], "a") as out:  # the processes of Ray print between our lines
            print(done.task.source, done.rows, bool(done.error), file=out)
    # A run that is stopped ends by its own handlers.
    assert stops == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_source_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOST, str(tmp_path / "done")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "done").read_text().splitlines()
    lost = ["kills 0 True", "kills 0 True", "raises 0 True"]
    assert sorted(lines) == sorted([*lost, *(f"{name} 3 False" for name in "abcd")])


def test_an_unknown_error_of_a_source_comes_back_with_it(
    tiny_model: TinyModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = tasks_of([folder / "a.avi"], [folder / "a.txt"], tmp_path, resume=False)
    full = OSError(28, "No space left on device")
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        monkeypatch.setattr(runner, "run", Mock(side_effect=full))
        done = embed_task(task, runner, Settings(model=tiny_model.path))
    assert done.rows == 0
    assert done.error.startswith("OSError: [Errno 28] No space left on device")


def test_a_source_is_not_written_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"out='.*images': images is read; write elsewhere"):
        tasks_of(["images"], [], Path(), resume=False)
