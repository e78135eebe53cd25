"""SIGKILL at random moments, with everything that a run can write at once."""

from __future__ import annotations

import importlib.util
import io
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from tests.clip import Clip
from tests.runtime.outputs.test_stores import SLOW

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
DATABASES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


KINDS = ("videos", "tars")
"""Videos beside a tar file of people, as a shard of WebDataset is; or tar files of frames."""


def pack(video: Path, out: Path, *, number: str, last: int | None = None) -> int:
    """Frames of a video as a tar file of JPEG files; how many they are."""
    capture, count = cv2.VideoCapture(str(video)), 0
    with tarfile.open(out, "w") as archive:
        while count != last:
            read, frame = capture.read()
            if not read:
                break
            count += 1
            data = cv2.imencode(".jpg", frame)[1].tobytes()
            entry = tarfile.TarInfo(number.format(count))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return count


def sources_of(kind: str, clip: Clip, folder: Path, count: int) -> tuple[list[Path], int]:
    """Some sources of the clip, with their boxes in a folder, and how many rows they give."""
    (folder / "boxes").mkdir()
    found, rows = [], count * clip.boxes
    for name in "abc"[:count]:
        shutil.copy(clip.detections, folder / "boxes" / f"{name}.txt")
        if kind == "videos":
            found.append(Path(shutil.copy(clip.video, folder / f"{name}.mp4")))
        else:
            found.append(folder / f"{name}.tar")
            pack(clip.video, found[-1], number="img1/{:06}.jpg")
    if kind == "videos":
        found.insert(1, folder / "people-000000.tar")
        rows += pack(clip.video, found[1], number="{:09}.jpg", last=30)
    return found, rows


def kills(
    model: TinyModel, clip: Clip, tmp_path: Path, kind: str, count: int, seed: int
) -> list[int]:
    """A list of sources into a divided folder, databases, an archive and crops.

    Returns:
        How many rows were stored when each run was killed.
    """
    clips, all_rows = sources_of(kind, clip, tmp_path, 3 if count > 4 else 1)
    boxes = tmp_path / "boxes"
    (tmp_path / "clips.txt").write_text("".join(f"{one}\n" for one in clips))
    found = [name for name, package in DATABASES.items() if importlib.util.find_spec(package)]
    outs = [tmp_path / "divided", *(tmp_path / f"people.{name}" for name in found)]
    words = [
        *(sys.executable, "-c", SLOW, model.path, tmp_path / "clips.txt", "--detections", boxes),
        *(word for out in [*outs, tmp_path / "people.npz"] for word in ("--out", out)),
        *("--partition", "source", "--crops", tmp_path / "crops", "--resume"),
        *("--runtime", "onnxruntime", "-b", "8", "--shard-rows", "60"),
    ]
    rng, stopped = random.Random(seed), list[int]()
    for _ in range(count):
        process = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Counted from the moment at which the run owns its folder, not from the start of Python.
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() < begun + 60:
            if (outs[0] / ".lock").exists() and (outs[0] / MANIFEST).exists():
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0.05, 1.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            stopped.append(Manifest.read(outs[0]).rows)
        (outs[0] / ".lock").unlink(missing_ok=True)  # left by the kill; its lock is free
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inside = [rows for rows in stopped if rows < all_rows]
    assert len(inside) >= min(count, 5), stopped
    whole = tmp_path / "whole"
    embed(
        *(clips, model.path, whole),
        detections=boxes, crops=tmp_path / "whole crops",
        batch_size=8, shard_rows=60, runtime="onnxruntime",
    )  # fmt: skip
    expected = read_embeddings(whole)
    assert len(expected.rows) == all_rows
    for out in [*outs, tmp_path / "people.npz"]:
        stored = read_embeddings(out)
        assert stored.rows == expected.rows, out
        np.testing.assert_array_equal(stored.vectors, expected.vectors, str(out))
    crops = {path.name: path.read_bytes() for path in (tmp_path / "crops").rglob("*.jpg")}
    assert crops == {p.name: p.read_bytes() for p in (tmp_path / "whole crops").rglob("*.jpg")}
    assert not [*(tmp_path / "divided").rglob(".*"), *(tmp_path / "crops").rglob(".*")]
    return stopped


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_are_killed_twice_fill_every_output_alike(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, kind: str
) -> None:
    kills(tiny_model, clip, tmp_path, kind, 2, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_are_killed_twenty_times_fill_every_output_alike(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, kind: str
) -> None:
    stopped = kills(tiny_model, clip, tmp_path, kind, 20, seed=2)
    print(f"{len(stopped)} of 20 runs killed, at rows {stopped}")
