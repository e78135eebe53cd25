"""A job over a service that is killed in the middle, and started again at the same port."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import httpx
import numpy as np
import pytest

from sa_deploy import read_embeddings
from tests.cli.invoke import invoke
from tests.cli.test_serve import served

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def people_of(url: str) -> float:
    """Vectors that a service has given so far."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    found = [line for line in text.splitlines() if line.startswith("sa_deploy_people_total")]
    return float(found[0].split()[1]) if found else 0.0


def job_over_kills(model: TinyModel, tmp_path: Path, *, count: int, kills: int) -> None:
    """Each life that is to be killed is so slow that it would take seconds for what is left."""
    folder, here, there = tmp_path / "people", tmp_path / "here.parquet", tmp_path / "there.parquet"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 256, (60, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:05}.png"), image)
    # A batch that is never full waits for its time: 32 crops, four requests of the job's.
    slow_ms = 32 * 8000 / count
    port, job = 0, None
    try:
        for life in range(kills + 1):
            delay_ms = slow_ms if life < kills else 2
            words = ["-b", 256, "--max-delay-ms", delay_ms]
            with served(model.path, *words, port=port) as (service, url):
                port = int(url.rpartition(":")[2])
                if job is None:
                    words = [model.path.stem, folder, "--server", url, "-b", 8, "--out", there]
                    command = [sys.executable, "-m", "sa_deploy", "embed", *map(str, words)]
                    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
                if life < kills:
                    while people_of(url) < count / 10:
                        assert job.poll() is None, job.communicate()
                        time.sleep(0.05)
                    assert job.poll() is None  # it is in the middle
                    service.send_signal(signal.SIGKILL)
                    service.wait()
                else:
                    _, said = job.communicate(timeout=200)
                    assert job.returncode == 0, said
                    assert 0 < people_of(url) < count * 0.95
    finally:
        if job is not None and job.poll() is None:
            job.kill()
            job.communicate()
    local = ["--out", here, "--runtime", "onnxruntime"]
    assert invoke("embed", model.path, folder, *local).returncode == 0
    mine, its = read_embeddings(here), read_embeddings(there)
    assert len(mine.rows) == count
    assert mine.rows == its.rows
    np.testing.assert_allclose(mine.vectors, its.vectors, atol=2e-6)


@pytest.mark.slow
def test_a_job_goes_on_over_a_service_that_is_killed(tiny_model: TinyModel, tmp_path: Path) -> None:
    job_over_kills(tiny_model, tmp_path, count=300, kills=1)


@pytest.mark.soak
def test_a_job_goes_on_over_a_service_that_is_killed_twice(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    job_over_kills(tiny_model, tmp_path, count=6000, kills=2)
