"""A folder that is watched: complete files only, each exactly once, over restarts."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.watch import watch
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def arrive(clip: Clip, folder: Path, name: str) -> None:
    shutil.copy(clip.video, folder / f"{name}.mp4")
    shutil.copy(clip.detections, folder / f"{name}.txt")


def image(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


class Looks:
    """Ends a watch after so many looks, and does something before each."""

    def __init__(self, *steps: Any, more: int = 3) -> None:
        self.steps = [*steps, *[lambda: None] * more]

    def __call__(self) -> bool:
        if not self.steps:
            return True
        self.steps.pop(0)()
        return False


def watched(model: TinyModel, folder: Path, out: Path, looks: Looks, **more: Any) -> list[int]:
    """Rows after each round."""
    with Embedder(model.path, "onnxruntime") as embedder:
        rounds = watch(
            folder, embedder, out, poll_s=0.001, settle_s=0.0, stop=looks, batch_size=8, **more
        )
        return [result.rows for result in rounds]


def test_what_is_complete_is_embedded_once(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    arrive(clip, folder, "a")
    shutil.copy(clip.video, folder / "no boxes yet.mp4")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "torn.mp4").write_bytes(b"no video")
    (folder / "torn.txt").write_text("1,1,0,0,9,9\n")
    data = clip.video.read_bytes()

    def grows(part: int) -> Any:
        def write() -> None:
            shutil.copy(clip.detections, folder / "b.txt")
            (folder / "b.mp4").write_bytes(data[: len(data) * part // 4])

        return write

    told: list[str] = []
    looks = Looks(*[grows(part) for part in (1, 2, 3, 4)])
    rows = watched(tiny_model, folder, out, looks, on_skip=lambda error: told.append(str(error)))
    assert rows == [clip.boxes, 2 * clip.boxes]
    assert len(told) == 1
    assert "torn.mp4: cannot be opened as a video" in told[0]
    # A restart finds nothing to do, then what came meanwhile, in whatever order of names.
    assert watched(tiny_model, folder, out, Looks()) == []
    shutil.copy(clip.detections, folder / "no boxes yet.txt")
    for seed in range(3):
        image(folder / f"0{seed}.png", seed)
    (folder / "09.png").write_bytes(b"torn")
    assert watched(tiny_model, folder, out, Looks()) == [3 * clip.boxes + 3]
    image(folder / "00.png", 7)  # another file of that name is not taken again
    assert watched(tiny_model, folder, out, Looks()) == []
    sources = read_embeddings(out).rows["source"].to_pylist()
    counts = {Path(name).name: sources.count(name) for name in set(sources)}
    whole = clip.boxes
    videos = {"a.mp4": whole, "b.mp4": whole, "no boxes yet.mp4": whole}
    assert counts == {**videos, "00.png": 1, "01.png": 1, "02.png": 1}


def test_a_video_that_grows_after_a_rest_is_told_of_once(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    folder, told = tmp_path / "in", list[str]()
    folder.mkdir()
    arrive(clip, folder, "a")
    image(folder / "b.png", 1)
    size = clip.video.stat().st_size

    def grow() -> None:
        with (folder / "a.mp4").open("ab") as file:
            file.write(bytes(100))

    looks = Looks(*[lambda: None] * 3, grow, more=4)
    skip = {"on_skip": lambda error: told.append(str(error))}
    assert watched(tiny_model, folder, tmp_path / "out", looks, **skip) == [clip.boxes + 1]
    assert len(told) == 1
    grown = f"a.mp4: has changed since it was embedded, from {size} to {size + 100} bytes"
    assert grown in told[0]


def test_only_a_torn_image_does_not_end_the_watch(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"torn")
    looks = Looks(*[lambda: None] * 3, lambda: arrive(clip, tmp_path / "in", "b"))
    assert watched(tiny_model, tmp_path / "in", tmp_path / "out", looks) == [0, clip.boxes]


def test_what_cannot_be_watched_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder; expected one to watch"):
        watched(tiny_model, tmp_path / "absent", tmp_path / "out", Looks())
    with pytest.raises(InputError, match=r"out='.*a\.parquet': what is watched needs a folder"):
        watched(tiny_model, tmp_path, tmp_path / "a.parquet", Looks())


def test_what_was_begun_and_is_gone_is_named(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    arrive(clip, tmp_path / "in", "a")

    def stops(state: Any) -> None:
        if state.rows > 100:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        watched(
            *(tiny_model, tmp_path / "in", tmp_path / "out", Looks()),
            on_progress=stops, shard_rows=40,
        )  # fmt: skip
    (tmp_path / "in" / "a.mp4").rename(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4: was begun, and is gone; put it back"):
        watched(tiny_model, tmp_path / "in", tmp_path / "out", Looks())
    (tmp_path / "a.mp4").rename(tmp_path / "in" / "a.mp4")
    assert watched(tiny_model, tmp_path / "in", tmp_path / "out", Looks()) == [clip.boxes]


def restarts(model: TinyModel, clip: Clip, tmp_path: Path, clips: int, by: list[int]) -> None:
    """Stop a watching command again and again while files arrive; every row is there once."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    words = [
        *(sys.executable, "-m", "sa_deploy", "embed", str(model.path), "--watch", str(folder)),
        *("--out", str(out), "--runtime", "onnxruntime", "-b", "8", "--shard-rows", "40"),
    ]
    given = 0

    def rows() -> int:
        return Manifest.read(out).rows if (out / MANIFEST).exists() else 0

    for number in [*by, signal.SIGTERM]:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        before, stop = rows(), time.monotonic() + 60
        for _ in range(clips):
            arrive(clip, folder, f"{given}")
            given += 1
        last = number == signal.SIGTERM and len(by) * clips < given
        while time.monotonic() < stop and process.poll() is None:
            whole = rows() == given * clip.boxes and Manifest.read(out).complete
            if whole or (not last and rows() > before):
                break
            time.sleep(0.01)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (143, -number), error
    assert rows() == given * clip.boxes
    sources = read_embeddings(out).rows["source"].to_pylist()
    assert {sources.count(name) for name in set(sources)} == {clip.boxes}


@pytest.mark.slow
def test_a_watch_that_is_killed_goes_on(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> None:
    restarts(tiny_model, clip, tmp_path, 1, [signal.SIGKILL])


@pytest.mark.soak
def test_a_watch_that_is_killed_ten_times_goes_on(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    restarts(tiny_model, clip, tmp_path, 3, [signal.SIGKILL] * 10)
