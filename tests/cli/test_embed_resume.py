from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline import parts
from sa_runtime.pipeline.stages import run_pipeline

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

FRAMES, PER_FRAME = 60, 3
ROWS = 2 * FRAMES * PER_FRAME + 8


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two videos of noise around a folder of images, with one damaged image, as arguments."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        writer = cv2.VideoWriter(
            str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)
        )
        lines = []
        for number in range(1, FRAMES + 1):
            writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            lines += [f"{number},{i},{5 * i},2,20,40\n" for i in range(PER_FRAME)]
            lines += [f"{number},8,70,0,9,9\n"] * (number % 10 == 0)
        writer.release()
        (folder / f"{name}.txt").write_text("".join(lines))
    (folder / "images").mkdir()
    for seed in range(9):
        image = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
        (folder / "images" / f"{seed}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "images" / "4.png").write_bytes(b"torn")
    a, b = folder / "a", folder / "b"
    return [
        f"{a}.avi", str(folder / "images"), f"{b}.avi",
        "--detections", f"{a}.txt", "--detections", f"{b}.txt",
    ]  # fmt: skip


def resulting(out: Path) -> Manifest:
    """The folder's manifest without the settings, which name the folder."""
    return dataclasses.replace(Manifest.read(out), settings={})


@pytest.fixture
def run(tiny_model: TinyModel, sources: list[str]) -> Callable[..., dict[str, Any]]:
    """Embed the sources into ``--out``; raises what it raised; gives its JSON."""

    def call(out: Path, *more: str, given: list[str] | None = None) -> dict[str, Any]:
        words = [str(tiny_model.path), *(given or sources), "--out", str(out), *more]
        words += ["--runtime", "onnxruntime", "--json", "-b", "8"]
        result = CliRunner().invoke(app, ["embed", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        summary: dict[str, Any] = json.loads(result.stdout)
        return summary

    return call


Run = Callable[..., dict[str, Any]]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(first: Path, second: Path) -> None:
    """The same rows with the same vectors, to the last bit."""
    a, b = read_embeddings(first), read_embeddings(second)
    assert a.rows.equals(b.rows)
    np.testing.assert_array_equal(a.vectors, b.vectors)


def test_a_folder_holds_the_rows_of_one_file(run: Run, tmp_path: Path) -> None:
    single = run(tmp_path / "one.parquet")
    summary = run(tmp_path / "many", "--shard-rows", "50")
    assert summary["rows"] == single["rows"] == ROWS
    assert summary["skipped"] == single["skipped"]
    assert summary["skipped"] == {
        "boxes_outside": 12,
        "boxes_without_size": 0,
        "boxes_filtered": 0,
        "boxes_beyond_end": 0,
        "unreadable_images": 1,
    }
    one, many = read_embeddings(tmp_path / "one.parquet"), read_embeddings(tmp_path / "many")
    assert many.rows.equals(one.rows)
    np.testing.assert_allclose(many.vectors, one.vectors, atol=1e-6)
    assert many.contract == one.contract
    manifest = Manifest.read(tmp_path / "many")
    assert files(tmp_path / "many") == [MANIFEST, *(shard.file for shard in manifest.shards)]
    assert manifest.complete
    assert (summary["files"], manifest.rows) == (len(manifest.shards), ROWS)
    for shard in manifest.shards[:-1]:
        assert 45 <= shard.rows <= 52  # to the end of a frame; boxes outside count till it is cut
    ends = [
        pq.read_table(tmp_path / "many" / shard.file, columns=["source", "frame"]).to_pylist()
        for shard in manifest.shards
    ]
    for before, after in pairwise(ends):
        assert before[-1] != after[0] or before[-1]["frame"] is None  # no frame is split


def test_what_was_stopped_goes_on(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    """Interrupted after every number of shards in turn, it comes to the same rows."""
    run(tmp_path / "whole", "--shard-rows", "50")
    whole = Manifest.read(tmp_path / "whole")
    left = 1

    def stopping(items: Any, runner: Any, sink: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        written = 0

        def torn(rows: Any, vectors: Any) -> None:
            nonlocal written
            written += len(rows)
            sink(rows, vectors)
            if left < 0 and written > 20:
                raise RuntimeError("stopped")

        return run_pipeline(items, runner, torn, **options)

    out = tmp_path / "stopped"
    monkeypatch.setattr(parts, "run_pipeline", stopping)
    for done in range(1, len(whole.shards)):
        with pytest.raises(RuntimeError, match="stopped"):
            run(out, "--shard-rows", "50", "--resume")
        left = 1
        # As if it had been stopped between naming a file and saying so in the manifest.
        (out / f"part-{done:05d}.parquet").write_bytes(b"torn")
        state = Manifest.read(out)
        assert (len(state.shards), state.complete) == (done, False)
        assert state.rows == sum(shard.rows for shard in whole.shards[:done])
        with pytest.raises(
            InputError, match=rf"not finished, {state.rows} rows so far; .*`resume=True`"
        ):
            read_embeddings(out)
        assert len(read_embeddings(out, unfinished=True).vectors) == state.rows
    monkeypatch.undo()
    summary = run(out, "--shard-rows", "50", "--resume")
    same(out, tmp_path / "whole")
    assert resulting(out) == resulting(tmp_path / "whole")
    assert summary["rows"] == ROWS
    assert summary["resumed_rows"] == ROWS - whole.shards[-1].rows
    assert summary["skipped"]["boxes_outside"] == 12
    again = run(out, "--resume")
    assert (again["rows"], again["resumed_rows"]) == (ROWS, ROWS)
    same(out, tmp_path / "whole")


def test_a_file_ends_after_its_time(
    run: Run, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_SECONDS", 0.0)
    run(tmp_path / "many", given=[sources[1]])
    assert [shard.rows for shard in Manifest.read(tmp_path / "many").shards] == [1] * 8
    monkeypatch.undo()
    run(tmp_path / "one.parquet", given=[sources[1]])
    many, one = read_embeddings(tmp_path / "many"), read_embeddings(tmp_path / "one.parquet")
    assert many.rows.equals(one.rows)


def test_a_killed_process_goes_on(
    run: Run, tiny_model: TinyModel, sources: list[str], tmp_path: Path
) -> None:
    run(tmp_path / "whole", "--shard-rows", "30")
    out = tmp_path / "killed"
    words = [str(tiny_model.path), *sources, "--out", str(out), "--shard-rows", "30", "--resume"]
    words += ["--runtime", "onnxruntime", "-b", "8"]
    slow = (
        "import sys, time\n"
        "from sa_deploy.app import main\n"
        "from sa_runtime.pipeline import parts as module\n"
        "pipeline = module.run_pipeline\n"
        "def slower(items, runner, sink, **options):\n"
        "    def write(rows, vectors):\n"
        "        time.sleep(0.03)\n"
        "        sink(rows, vectors)\n"
        "    return pipeline(items, runner, write, **options)\n"
        "module.run_pipeline = slower\n"
        "sys.argv = ['sa-deploy', 'embed', *sys.argv[1:]]\n"
        "main()\n"
    )
    kills = 0
    for wanted in (2, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", slow, *words], stdout=subprocess.DEVNULL, env=os.environ.copy()
        )
        stop = time.monotonic() + 60
        while time.monotonic() < stop and process.poll() is None:
            begun = (out / MANIFEST).exists() and len(Manifest.read(out).shards) >= wanted
            if begun and list(out.glob(".part-*")):  # in the middle of the next shard
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        state = Manifest.read(out)
        assert wanted <= len(state.shards) < len(Manifest.read(tmp_path / "whole").shards)
    assert kills == 2
    assert list(out.glob(".part-*"))  # left by the kill
    summary = run(out, "--shard-rows", "30", "--resume")
    assert (summary["rows"], 0 < summary["resumed_rows"] < ROWS) == (ROWS, True)
    assert not list(out.glob(".*"))
    same(out, tmp_path / "whole")
    assert resulting(out) == resulting(tmp_path / "whole")


def test_what_differs_is_named_and_refused(
    run: Run, sources: list[str], tmp_path: Path, make_tiny_model: Callable[..., TinyModel]
) -> None:
    out = tmp_path / "out"
    run(out)
    before = (out / MANIFEST).read_bytes()
    other = Path(sources[4]).with_name("other.txt")
    other.write_text(Path(sources[4]).read_text() + "1,1,0,0,10,10\n")
    with pytest.raises(InputError, match=r"holds 368 rows of an earlier run; .* `resume=True`"):
        run(out)
    cases = {
        r"options\.camera was absent and is \"door\"": (["--camera", "door"], sources),
        r"options\.dtype was \"float32\" and is \"float16\"": (["--dtype", "float16"], sources),
        r"sources\.0\.boxes was 186 and is 187; sources\.0\.detections was": (
            [], [*sources[:4], str(other), *sources[5:]],
        ),
    }  # fmt: skip
    for message, (more, given) in cases.items():
        with pytest.raises(InputError, match=f"cannot go on .* because .*{message}"):
            run(out, "--resume", *more, given=given)
    words = [str(make_tiny_model(seed=1).path), *sources, "--out", str(out), "--resume"]
    with pytest.raises(InputError, match=r"model\.space was \"tiny-0\" and is \"tiny-1\""):
        CliRunner().invoke(
            app, ["embed", *words, "--runtime", "onnxruntime"], catch_exceptions=False
        )
    assert (out / MANIFEST).read_bytes() == before
    with pytest.raises(InputError, match=r"resume=True: .*o\.parquet is one file"):
        run(tmp_path / "o.parquet", "--resume")


def test_a_folder_of_others_and_damage_are_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, "--shard-rows", "100")
    shard = out / Manifest.read(out).shards[1].file
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(InputError, match=r"part-00001\.parquet: was changed after it was"):
        run(out, "--resume")
    shard.write_bytes((out / "part-00003.parquet").read_bytes())
    with pytest.raises(InputError, match=r"part-00001\.parquet: was changed after it was"):
        run(out, "--resume")
    (out / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match=r"not a manifest that can be read .its schema is not"):
        run(out, "--resume")
    (out / MANIFEST).unlink()
    with pytest.raises(InputError, match="exists and was not written by"):
        run(out, "--resume")
    with pytest.raises(InputError, match=r"no stored embeddings in it, .* no _manifest\.json"):
        read_embeddings(out)


def test_no_boxes_make_one_empty_file(run: Run, sources: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    out = tmp_path / "out"
    summary = run(out, given=[sources[0], "--detections", str(empty)])
    assert (summary["rows"], summary["files"]) == (0, 1)
    assert read_embeddings(out).vectors.shape == (0, 12)
