"""A real S3 server on loopback: model, sources, boxes and outputs by address; kills included."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.system.remote import address_of
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx", "tests.s3_server")
WEEK = "s3://cams/week"
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
OPTIONS: dict[str, Any] = {"runtime": "onnxruntime", "batch_size": 8, "shard_rows": 60}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of this machine stand: nothing is to be left there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def week(s3: Any, tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> list[Path]:
    """Two clips with their boxes and the model in the store; the same clips here."""
    s3.put_file(str(tiny_model.path), "cams/model.onnx")
    here = []
    for name in ("a", "b"):
        here.append(Path(shutil.copy(clip.video, tmp_path / f"{name}.mp4")))
        s3.put_file(str(clip.video), f"cams/week/{name}.mp4")
        s3.put_file(str(clip.detections), f"cams/week/{name}.txt")
    return here


def as_here(store: str, here: Path) -> None:
    ours, theirs = read_embeddings(store), read_embeddings(here)
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
    sources = [f"{WEEK}/{Path(one).name}" for one in theirs.rows["source"].to_pylist()]
    assert ours.rows["source"].to_pylist() == sources
    assert ours.rows.drop_columns("source") == theirs.rows.drop_columns("source")


def left_here(home: Path) -> list[Path]:
    ours = [path for folder in home.glob("sa-deploy-*") for path in folder.rglob("*")]
    return [path for path in ours if path.is_file() and path.name != "_manifest.json"]


def test_a_week_of_clips_in_a_store(
    s3: Any, week: list[Path], tiny_model: TinyModel, clip: Clip, tmp_path: Path, home: Path
) -> None:
    outs = ["s3://cams/out", "s3://cams/out.npz", str(tmp_path / "local")]
    result = embed(f"{WEEK}/*.mp4", "s3://cams/model.onnx", outs, detections=f"{WEEK}/", **OPTIONS)
    boxes = [clip.detections] * 2
    embed(week, tiny_model.path, tmp_path / "here", detections=boxes, **OPTIONS)
    assert result.rows == 2 * clip.boxes
    for out in outs:
        as_here(out, tmp_path / "here")
    assert (str(result.out), result.model) == ("s3://cams/out", "s3://cams/model.onnx")
    found = s3.find("cams/out", detail=True)
    assert result.size_bytes > sum(one["size"] for one in found.values()) / 2
    assert {name.rpartition("/")[2] for name in found} >= {"_manifest.json", "part-00000.parquet"}
    assert left_here(home) == []


def test_a_folder_in_a_store_grows_and_refuses_as_one_here(
    s3: Any, week: list[Path], tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    out = "s3://cams/grown/"
    given: dict[str, Any] = {"detections": clip.detections, **OPTIONS}
    embed(f"{WEEK}/a.mp4", tiny_model.path, out, partition=["camera"], camera="door", **given)
    with pytest.raises(InputError, match=r"s3://cams/grown: holds 310 rows of an earlier run; go"):
        embed(f"{WEEK}/a.mp4", tiny_model.path, out, **given)
    s3.pipe_file("cams/grown/camera_name=door/part-00099-00000.parquet", b"left by a kill")
    grown: dict[str, Any] = {"partition": ["camera"], "camera": "door", "resume": True, **given}
    result = embed(f"{WEEK}/b.mp4", tiny_model.path, [out, tmp_path / "late"], **grown)
    assert (result.rows, result.resumed_rows) == (2 * clip.boxes, clip.boxes)
    assert not s3.exists("cams/grown/camera_name=door/part-00099-00000.parquet")
    assert read_embeddings(out).rows == read_embeddings(tmp_path / "late").rows
    first = next(name for name in s3.find("cams/grown") if name.endswith("00000.parquet"))
    s3.pipe_file(first, b"changed")
    with pytest.raises(InputError, match=r"part-00000-00000\.parquet: a finished file is gone or"):
        embed(f"{WEEK}/b.mp4", tiny_model.path, out, **grown)
    s3.pipe_file("cams/others/x.parquet", b"")
    with pytest.raises(InputError, match=r"s3://cams/others: holds Parquet files of others"):
        embed(f"{WEEK}/a.mp4", tiny_model.path, "s3://cams/others", **given)


def test_another_run_elsewhere_is_noticed(
    s3: Any, week: list[Path], tiny_model: TinyModel, clip: Clip
) -> None:
    def meddle(state: Any) -> None:
        if state.rows > 100:
            s3.pipe_file("cams/two/_manifest.json", b"{}")

    with pytest.raises(InputError, match=r"s3://cams/two: another run has written into it"):
        embed(
            *(f"{WEEK}/a.mp4", tiny_model.path, "s3://cams/two"),
            detections=clip.detections, on_progress=meddle, **OPTIONS,
        )  # fmt: skip


def test_images_and_what_is_not_there(
    s3: Any, week: list[Path], tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    import cv2

    for index in range(40):
        image = np.full((20, 10, 3), 6 * index, np.uint8)
        s3.pipe_file(f"cams/crops/{index:02}.png", cv2.imencode(".png", image)[1].tobytes())
    s3.pipe_file("cams/crops/07.png", b"torn")
    s3.pipe_file("cams/crops/notes.txt", b"")
    told: list[str] = []
    result = embed(
        ["s3://cams/crops/", "s3://cams/crops/03.png"], tiny_model.path, tmp_path / "a.parquet",
        on_skip=lambda error: told.append(str(error)), **OPTIONS,
    )  # fmt: skip
    assert (result.rows, result.counts.unreadable_images, result.counts.other_files) == (40, 1, 1)
    assert told[0].startswith("s3://cams/crops/07.png: not a whole image")
    sources = read_embeddings(tmp_path / "a.parquet").rows["source"].to_pylist()
    assert sources[0] == "s3://cams/crops/00.png"
    assert sources[-1] == "s3://cams/crops/03.png"
    out = tmp_path / "b.parquet"
    for source, model, message in (
        ("s3://cams/absent.mp4", tiny_model.path, "no such file in the store; expected a video"),
        (f"{WEEK}/*.avi", tiny_model.path, "finds no file in the store"),
        (
            "s3://cams/week/",
            tiny_model.path,
            r"no images below it .*such as s3://cams/week/\*\.mp4",
        ),
        (f"{WEEK}/a.mp4", "s3://cams/absent.onnx", "no such file in the store; expected a model"),
        ("s3://nowhere/a.png", tiny_model.path, "no such file|cannot be read"),
    ):
        with pytest.raises((InputError, MissingFileError), match=message):
            embed(source, model, out, detections=[clip.detections] if "mp4" in source else [])
    with pytest.raises(InputError, match="a database is written to a folder of this machine"):
        embed(week[0], tiny_model.path, "s3://cams/x.qdrant", detections=clip.detections)
    with pytest.raises(InputError, match=r"crops='s3:.*': expected a folder of this machine"):
        embed(week[0], tiny_model.path, out, detections=clip.detections, crops="s3://cams/c")


def test_a_store_that_does_not_answer_is_named(
    week: list[Path],
    tiny_model: TinyModel,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with pytest.raises(InputError, match=r"s3://cams/week/a\.mp4: cannot be read .*127\.0\.0\.1:9"):
        embed(f"{WEEK}/a.mp4", tiny_model.path, tmp_path / "a", detections=clip.detections)
    s3fs.S3FileSystem.clear_instance_cache()


def kills(model: TinyModel, out: str, count: int, seed: int, home: Path) -> int:
    """SIGKILL runs at random moments, then let one finish; how many were killed."""
    words = [
        *(sys.executable, "-c", SLOW, str(model.path), f"{WEEK}/*.mp4"),
        *("--detections", f"{WEEK}/", "--out", out, "--out", f"{out}.npz", "--resume"),
        *("--runtime", "onnxruntime", "-b", "8", "--shard-rows", "60"),
    ]
    rng, killed = random.Random(seed), 0
    for _ in range(count):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.0, 3.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert left_here(home) == []
    return killed


@pytest.mark.slow
def test_runs_into_a_store_that_are_killed_come_to_the_same(
    week: list[Path], tiny_model: TinyModel, clip: Clip, tmp_path: Path, home: Path
) -> None:
    embed(week, tiny_model.path, tmp_path / "here", detections=[clip.detections] * 2, **OPTIONS)
    assert kills(tiny_model, "s3://cams/killed", 2, 3, home) > 0
    as_here("s3://cams/killed", tmp_path / "here")
    as_here("s3://cams/killed.npz", tmp_path / "here")


@pytest.mark.soak
def test_runs_into_a_store_that_are_killed_twenty_times_come_to_the_same(
    week: list[Path], tiny_model: TinyModel, clip: Clip, tmp_path: Path, home: Path
) -> None:
    embed(week, tiny_model.path, tmp_path / "here", detections=[clip.detections] * 2, **OPTIONS)
    assert kills(tiny_model, "s3://cams/killed", 20, 4, home) >= 10
    as_here("s3://cams/killed", tmp_path / "here")
    as_here("s3://cams/killed.npz", tmp_path / "here")


def test_addresses_are_told_from_paths() -> None:
    assert address_of("s3:/cams/a.mp4") == "s3://cams/a.mp4"  # as a Path makes it
    assert address_of(Path("gs://b/x y.mp4")) == "gs://b/x y.mp4"
    assert [address_of(one) for one in ("a.mp4", "c:/a.mp4", "rtsp://a/1", None, "s3:")] == [
        None
    ] * 5
