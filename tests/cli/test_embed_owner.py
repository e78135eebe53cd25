"""Folders and files have one owner, and nothing that is read or of others is touched."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.system.locking import owned
from tests.clip import Clip
from tests.file_limits import process_with_files_up_to

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
SLOW = """
import sys, time
from sa_runtime.pipeline import parts as module
from sa_deploy.app import main
pipeline = module.run_pipeline
def slower(items, runner, sink, **options):
    def write(rows, vectors):
        time.sleep(0.03)
        sink(rows, vectors)
    return pipeline(items, runner, write, **options)
module.run_pipeline = slower
sys.argv = ["sa-deploy", "embed", *sys.argv[1:]]
main()
"""


def start(model: Path, clip: Clip, out: Path, *more: str) -> subprocess.Popen[str]:
    words = [model, clip.video, "--detections", clip.detections, "--out", out, *more]
    words += ["--runtime", "onnxruntime", "-b", "8"]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=60)
    return process.returncode, error


@pytest.fixture
def whole(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> Path:
    embed(
        clip.video,
        tiny_model.path,
        tmp_path / "whole",
        detections=clip.detections,
        runtime="onnxruntime",
        batch_size=8,
        shard_rows=40,
    )
    return tmp_path / "whole"


def same_rows(folder: Path, whole: Path) -> None:
    ours, theirs = read_embeddings(folder), read_embeddings(whole)
    assert ours.rows == theirs.rows
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)


@pytest.mark.slow
def test_two_runs_into_one_folder_never_mix(
    tiny_model: TinyModel, clip: Clip, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    both = [start(tiny_model.path, clip, out, "--shard-rows", rows, "--resume") for rows in "45"]
    ended = [finished(process) for process in both]
    refused = [error for code, error in ended if code]
    if refused:
        assert [code for code, _ in ended].count(2) == 1
        assert "is being written by process" in refused[0]
    same_rows(out, whole)
    assert not list(out.glob(".*"))


def kills(model: Path, clip: Clip, whole: Path, out: Path, count: int, seed: int) -> None:
    """Stop a run at random moments, one in two beside a second writer; then let it finish."""
    rng = random.Random(seed)
    for kill in range(count):
        process = start(model, clip, out, "--shard-rows", "40", "--resume")
        second = start(model, clip, out, "--shard-rows", "40", "--resume") if kill % 2 else None
        time.sleep(rng.uniform(0.2, 1.6))
        process.send_signal(signal.SIGKILL if kill % 4 < 2 else signal.SIGTERM)
        process.communicate()
        if second is not None:
            second.send_signal(signal.SIGTERM)
            code, error = finished(second)
            assert code in (0, 2, 143, -signal.SIGTERM), error
        if (out / MANIFEST).exists():
            read_embeddings_so_far(out, whole)
    code, error = finished(start(model, clip, out, "--shard-rows", "40", "--resume"))
    assert code == 0, error
    same_rows(out, whole)
    assert not list(out.glob(".*"))


def read_embeddings_so_far(out: Path, whole: Path) -> None:
    try:
        stored = read_embeddings(out, unfinished=True)
    except InputError as error:
        assert "not finished, 0 rows" in str(error)  # noqa: PT017 (nothing is stored yet)
        return
    count = len(stored.vectors)
    np.testing.assert_array_equal(stored.vectors, read_embeddings(whole).vectors[:count])


@pytest.mark.slow
def test_runs_that_are_killed_come_to_the_same_rows(
    tiny_model: TinyModel, clip: Clip, whole: Path, tmp_path: Path
) -> None:
    kills(tiny_model.path, clip, whole, tmp_path / "killed", 4, seed=1)


@pytest.mark.soak
def test_runs_that_are_killed_twenty_times_come_to_the_same_rows(
    tiny_model: TinyModel, clip: Clip, whole: Path, tmp_path: Path
) -> None:
    kills(tiny_model.path, clip, whole, tmp_path / "killed", 20, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_into_a_file_leaves_nothing(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, by: signal.Signals
) -> None:
    process = start(tiny_model.path, clip, tmp_path / "people.parquet")
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".people.*.partial.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(by)
    code, error = finished(process)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(by, -by), error
    if by is signal.SIGKILL:
        assert list(tmp_path.glob(".*"))
        embed(clip.video, tiny_model.path, tmp_path / "people.parquet", detections=clip.detections)
        (tmp_path / "people.parquet").unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_said_and_what_is_finished_stays(
    tiny_model: TinyModel, clip: Clip, whole: Path, tmp_path: Path
) -> None:
    largest = max(path.stat().st_size for path in whole.glob("*.parquet"))
    words = [tiny_model.path, clip.video, "--detections", clip.detections, "-b", "8"]
    words += ["--runtime", "onnxruntime", "--shard-rows", "40", "--resume"]
    for size, left in ((largest - 1, True), (2_000, False)):
        out = tmp_path / str(size)
        process = subprocess.run(
            [sys.executable, "-m", "sa_deploy", "embed", *map(str, words), "--out", str(out)],
            capture_output=True,
            text=True,
            check=False,
            **process_with_files_up_to(size),
        )
        assert process.returncode == 2, process.stderr
        assert "Traceback" not in process.stderr
        last = process.stderr.splitlines()[-1]
        assert last.startswith(f"error: {out}/part-0000"), last
        assert "larger than a file may be here" in last
        assert not list(out.glob(".*"))
        assert bool(list(out.glob("*.parquet"))) == left
    code, error = finished(start(tiny_model.path, clip, out, "--shard-rows", "40", "--resume"))
    assert code == 0, error
    same_rows(out, whole)


def test_what_others_keep_in_the_folder_stays(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = [".film.partial.mp4", ".export.9.partial.onnx", ".people.1-00.partial.parquet"]
    for name in names:
        (out / name).write_text("of others")
    (out / ".x.partial").mkdir()
    embed(clip.video, tiny_model.path, out, detections=clip.detections)
    assert sorted(path.name for path in out.glob(".*")) == sorted([*names, ".x.partial"])


@pytest.mark.parametrize("target", ["model", "image", "boxes", "video", "linked", "folder"])
def test_nothing_that_is_read_is_written_over(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, target: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), np.zeros((8, 4, 3), np.uint8))
    places = {
        "model": tmp_path / "model.onnx",
        "image": tmp_path / "b.png",
        "boxes": tmp_path / "c.txt",
        "video": tmp_path / "c.mp4",
    }
    shutil.copy(tiny_model.path, places["model"])
    shutil.copy(images / "a.png", places["image"])
    shutil.copy(clip.detections, places["boxes"])
    shutil.copy(clip.video, places["video"])
    os.link(places["model"], tmp_path / "linked.parquet")
    places["linked"] = tmp_path / "linked.parquet"
    places["folder"] = images / "people.parquet"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # As a folder, so that the suffix alone does not refuse it.
    out = str(places[target]) if places[target].suffix == ".parquet" else f"{places[target]}/"
    with pytest.raises(InputError, match=r"out='.*': (it|.*images) is read; write"):
        embed(
            [places["image"], images, places["video"]],
            places["model"],
            out,
            detections=places["boxes"],
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_finished_file_that_was_replaced_is_noticed(
    tiny_model: TinyModel, clip: Clip, whole: Path
) -> None:
    second = whole / "part-00001.parquet"
    group = pq.read_metadata(second).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    vectors = max(columns, key=lambda column: column.total_compressed_size)
    data = bytearray(second.read_bytes())
    # A bit of a vector: rows and size stay what they were.
    data[vectors.data_page_offset + vectors.total_compressed_size // 2] ^= 1
    second.write_bytes(data)
    assert (
        pq.read_metadata(second).num_rows
        == json.loads((whole / MANIFEST).read_text())["shards"][1]["rows"]
    )
    with pytest.raises(InputError, match=r"part-00001\.parquet: was changed after it was written"):
        read_embeddings(whole)
    with pytest.raises(InputError, match=r"part-00001\.parquet: was changed after it was written"):
        embed(
            clip.video,
            tiny_model.path,
            whole,
            detections=clip.detections,
            runtime="onnxruntime",
            batch_size=8,
            shard_rows=40,
            resume=True,
        )


def test_a_file_is_not_written_by_two(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "people.parquet"
    with owned(out), pytest.raises(InputError, match=r"people\.parquet: is being written by"):
        embed(clip.video, tiny_model.path, out, detections=clip.detections)
    embed(clip.video, tiny_model.path, out, detections=clip.detections)
    assert [path.name for path in tmp_path.iterdir()] == ["people.parquet"]
