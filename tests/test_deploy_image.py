"""The image for processors, really built and run: not root, healthy, drained by SIGTERM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
ROOT = Path(__file__).parents[1]
IMAGE = "localhost/sa-deploy-test"
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}
CLIENT = """
import sys, numpy as np
from sa_deploy import Client
from sa_runtime.errors import SaDeployError
given = 0
with Client("http://127.0.0.1:8000", key="secret", timeout_s=3) as client:
    images = np.zeros((2, 32, 16, 3), np.uint8)
    try:
        while True:
            vectors = client.embed(images)
            given += 1
            if given == 1:
                print(vectors.shape, float(np.linalg.norm(vectors[0])), flush=True)
    except SaDeployError:
        print(given)
"""


def buildah(*words: object) -> str:
    done = subprocess.run(
        ["buildah", *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture
def container() -> Iterator[str]:
    """A container of the image, which is built on the base image that is named."""
    base = os.environ.get("SA_DEPLOY_BASE_IMAGE")
    if shutil.which("buildah") is None or base is None:
        pytest.skip("needs buildah, and SA_DEPLOY_BASE_IMAGE: python:3.12-slim or an image like it")
    if os.getuid() != 0:
        pytest.skip("needs root, for a network of the container's own")
    words = ("--build-arg", f"BASE={base}", "--file", ROOT / "deploy/Dockerfile", "--tag", IMAGE)
    buildah("build", *words, ROOT)
    name = buildah("from", IMAGE)
    try:
        print(buildah("images", "--format", "{{.Size}}", IMAGE))
        yield name
    finally:
        buildah("rm", name)
        buildah("rmi", IMAGE)


@pytest.mark.soak
def test_the_image_runs_as_it_says(container: str, tiny_model: TinyModel, tmp_path: Path) -> None:
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    keys = tmp_path / "keys"
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    keys.write_text(f"cameras {digest}\n")
    model = shutil.copy(tiny_model.path, tmp_path / "model.onnx")
    for path, mode in ((keys, 0o644), (model, 0o644)):
        Path(path).chmod(mode)
    run = ["buildah", "run", "--volume", f"{model}:/models/model.onnx:ro"]
    run += ["--volume", f"{keys}:/keys/keys:ro", container, "--"]
    assert (
        subprocess.check_output([*run, "id", "-u"], env=ENVIRONMENT, text=True).strip() == "10001"
    )
    # A network of its own, in which only the containers' programs reach it.
    isolated = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-"]
    log = tmp_path / "log"
    with log.open("w") as written:
        service = subprocess.Popen(
            [*isolated, *run, *config["Entrypoint"], *config["Cmd"]],
            env=ENVIRONMENT, stdout=written, stderr=written, start_new_session=True,
        )  # fmt: skip
    inside = ["nsenter", "--net", "--target", str(service.pid), *run]
    health = [*inside, *config["Healthcheck"]["Test"][1:]]
    try:
        until = time.monotonic() + 60
        while subprocess.run(health, env=ENVIRONMENT, capture_output=True).returncode:
            assert service.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        asking = [*inside, "python", "-c", CLIENT]
        client = subprocess.Popen(asking, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        shape, norm = client.stdout.readline().rsplit(maxsplit=1)
        time.sleep(1)
        os.kill(pid_of("sa-deploy", below=service.pid), signal.SIGTERM)
        assert service.wait(30) == 0
        given = int(client.communicate(timeout=30)[0])
    finally:
        if service.poll() is None:
            os.killpg(service.pid, signal.SIGKILL)
    assert (shape, round(float(norm), 5)) == ("(2, 12)", 1.0)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    answered = [line for line in lines if line.get("people") == 2 and line["status"] == 200]
    assert len(answered) == given > 1


def pid_of(program: str, *, below: int) -> int:
    """The process of a Python program among the descendants of another process."""
    parents, words = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                words[int(entry.name)] = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    for pid in words:
        above = pid
        while above in parents and above != below:
            above = parents[above]
        run = words[pid][:2]
        if above == below and run[0].endswith("/python") and run[-1].endswith(f"/{program}"):
            return pid
    raise AssertionError(f"no {program} below {below}")
