"""A day of video on four Ray workers, on two machines of which one is lost, and in two runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.outputs.read import read_embeddings

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
FRAMES, STEP = 86_400, 12
"""A frame a second; people are seen every twelfth."""

CLUSTER = """
import json, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from sa_runtime.outputs.manifest import MANIFEST
from sa_runtime.pipeline.ray import embed_on_ray
from sa_runtime.pipeline.tasks import Settings, tasks_of

model, video, boxes, out = map(Path, sys.argv[1:5])
lose = int(sys.argv[5])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
other = cluster.add_node(num_cpus=2)
tasks = tasks_of([video], [boxes], out, resume=False)
settings = Settings(model=model, runtime="onnxruntime", options={"threads": 1}, shard_rows=200,
                    split_frames=5400)
killed = []

def kill():
    ranges = out / video.name / ".ranges"
    while not sum(1 for _ in ranges.glob("*/part-*.parquet")) > 6:
        time.sleep(0.05)
    cluster.remove_node(other)
    killed.append(time.time())

if lose:
    threading.Thread(target=kill, daemon=True).start()
results = list(embed_on_ray(tasks, settings, workers=4, address=cluster.address))
print("RESULT", json.dumps({"rows": results[0].rows, "error": results[0].error,
                            "killed": len(killed)}), flush=True)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("day")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (97, 6, 8, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(folder / "day.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 1, (64, 48))
    for number in range(FRAMES):
        writer.write(pictures[number % 97].repeat(8, axis=0).repeat(8, axis=1))
    writer.release()
    lines = [f"{number},1,10,2,20,40,1\n" for number in range(5, FRAMES + 1, STEP)]
    (folder / "day.txt").write_text("".join(lines))
    return folder / "day.mp4", folder / "day.txt"


@pytest.fixture(scope="module")
def alone(
    tiny_model: TinyModel, day: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("alone") / "alone.parquet"
    run("embed", tiny_model.path, day[0], "--detections", day[1], "--out", out)
    return out


def run(*words: object) -> None:
    command = [sys.executable, "-m", "sa_deploy", *map(str, words), "--runtime", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def same(folder: Path, alone: Path) -> None:
    mine, its = read_embeddings(folder), read_embeddings(alone)
    assert len(its.vectors) == len(range(5, FRAMES + 1, STEP))
    assert mine.rows == its.rows
    np.testing.assert_allclose(mine.vectors, its.vectors, atol=2e-6)


@pytest.mark.soak
@pytest.mark.parametrize("lose", [0, 1], ids=["whole", "one machine lost"])
def test_four_workers_on_two_machines_give_the_rows_of_one_process(
    tiny_model: TinyModel, day: tuple[Path, Path], alone: Path, tmp_path: Path, lose: int
) -> None:
    words = map(str, (tiny_model.path, *day, tmp_path, lose))
    command = [sys.executable, "-W", "ignore", "-c", CLUSTER, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert "RESULT " in done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])
    assert (result["error"], result["killed"]) == ("", lose), result
    same(tmp_path / "day.mp4", alone)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on(
    tiny_model: TinyModel,
    day: tuple[Path, Path],
    alone: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    words = ["embed", tiny_model.path, day[0], "--detections", day[1], "--out", tmp_path]
    words += ["--ray-workers", "2", "--split-frames", "5400", "--shard-rows", "200"]
    words += ["--runtime", "onnxruntime"]
    command = [sys.executable, "-m", "sa_deploy", *map(str, words)]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while sum(1 for _ in tmp_path.glob("*/.ranges/*/part-*.parquet")) < 6:
        time.sleep(0.05)
        assert job.poll() is None
    if number == signal.SIGINT:
        os.killpg(job.pid, number)  # as a terminal does
    else:
        # Where Ray's processes get SIGTERM too and end first, Ray ends this one with code 1.
        os.kill(job.pid, number)
    _, said = job.communicate(timeout=60)
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert job.returncode == codes[number], said
    assert "Traceback" not in said
    assert (tmp_path / day[0].name / ".ranges").is_dir()
    if number == signal.SIGKILL:
        time.sleep(10)  # workers whose driver is gone end within seconds
    run(*words[:-2], "--resume")
    same(tmp_path / day[0].name, alone)
    assert not list(tmp_path.glob("*/.*"))
