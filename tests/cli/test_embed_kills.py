"""SIGKILL at random moments, with everything that a run can write at once."""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

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


def kills(model: TinyModel, clip: Clip, tmp_path: Path, count: int, seed: int) -> None:
    """A list of clips into a divided folder, databases, an archive and crops."""
    clips = [
        Path(shutil.copy(clip.video, tmp_path / f"{name}.mp4"))
        for name in "abc"[: 1 + (count > 4) * 2]
    ]
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    for one in clips:
        shutil.copy(clip.detections, boxes / f"{one.stem}.txt")
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
    inside = [rows for rows in stopped if rows < len(clips) * clip.boxes]
    assert len(inside) >= min(count, 5), stopped
    whole = tmp_path / "whole"
    embed(
        *(clips, model.path, whole),
        detections=boxes, crops=tmp_path / "whole crops",
        batch_size=8, shard_rows=60, runtime="onnxruntime",
    )  # fmt: skip
    expected = read_embeddings(whole)
    for out in [*outs, tmp_path / "people.npz"]:
        stored = read_embeddings(out)
        assert stored.rows == expected.rows, out
        np.testing.assert_array_equal(stored.vectors, expected.vectors, str(out))
    crops = {path.name: path.read_bytes() for path in (tmp_path / "crops").rglob("*.jpg")}
    assert crops == {p.name: p.read_bytes() for p in (tmp_path / "whole crops").rglob("*.jpg")}
    assert not [*(tmp_path / "divided").rglob(".*"), *(tmp_path / "crops").rglob(".*")]


@pytest.mark.slow
def test_runs_that_are_killed_twice_fill_every_output_alike(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    kills(tiny_model, clip, tmp_path, 2, seed=1)


@pytest.mark.soak
def test_runs_that_are_killed_twenty_times_fill_every_output_alike(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    kills(tiny_model, clip, tmp_path, 20, seed=2)
