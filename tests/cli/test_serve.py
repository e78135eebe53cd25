"""``sa-deploy serve`` as a process: it answers, ``embed --server`` uses it, SIGTERM drains it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

from sa_deploy import read_embeddings
from sa_runtime.errors import InputError
from sa_runtime.service.models import named_files
from tests.cli.invoke import invoke
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


@contextmanager
def served(*words: object, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address (port 0: any that is free); it is stopped by SIGTERM."""
    command = [sys.executable, "-m", "sa_deploy", "serve", *map(str, words)]
    command += ["--port", str(port), "--json", "--runtime", "onnxruntime"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("}"):
                break
        answer: dict[str, Any] = json.loads(said or "{}")
        yield process, answer["url"]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_embed_server_writes_the_rows_of_embed(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    words = [clip.video, "--detections", clip.detections]
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    with served(tiny_model.path) as (process, url):
        done = invoke("embed", "tiny0", *words, "--server", url, "--out", there, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runtime"] == "server"
        wrong = invoke("embed", "other", *words, "--server", url, "--out", tmp_path / "x.parquet")
        assert wrong.returncode == 2
        assert "no model 'other'; expected one of tiny0" in wrong.stderr
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "drained" in said
    assert invoke("embed", tiny_model.path, *words, "--out", here).returncode == 0
    mine, its = read_embeddings(here), read_embeddings(there)
    assert mine.rows == its.rows
    np.testing.assert_allclose(mine.vectors, its.vectors, atol=2e-6)
    assert its.contract == mine.contract


def test_what_the_service_decides_is_not_said_twice(tmp_path: Path) -> None:
    words = ["embed", "model", tmp_path, "--out", tmp_path / "x.parquet"]
    done = invoke(*words, "--server", "http://127.0.0.1:9", "--runtime", "openvino")
    assert done.returncode == 2
    assert "--runtime openvino: the service decides that" in done.stderr


def test_a_service_that_is_not_there_is_told_with_the_option_that_waits_longer(
    tmp_path: Path,
) -> None:
    words = ["embed", "model", tmp_path, "--out", tmp_path / "x.parquet", "--server-timeout", 0.5]
    done = invoke(*words, "--server", "http://127.0.0.1:9")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "http://127.0.0.1:9: nobody answers there" in said
    assert "a longer --server-timeout waits longer" in said
    done = invoke(*words)
    assert done.returncode == 2
    assert "--server-timeout 0.5: goes with --server" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others reach this address"),
        (["--client-ca", "ca.pem"], "--client-ca ca.pem: needs --certificate"),
        (["--max-images", "200"], "--queue-crops 128: expected at least"),
        (["--timeout-ms", "0"], "--timeout-ms 0: expected more than 0"),
        (["--max-delay-ms", "2e4"], "20000: expected less than --timeout-ms 10000"),
        (["--timeout-ms", "inf"], "--timeout-ms inf: expected more than 0 and less than"),
        (["--max-body-mb", "inf"], "--max-body-mb inf: expected more than 0 and less than"),
        (["--private-key", "k.pem"], "--private-key k.pem: needs --certificate"),
        (["--ray-models", "2"], "--ray-models 2: goes with --ray-replicas"),
        (["--ray-address", "a:1"], "--ray-address a:1: goes with --ray-replicas"),
        (["--host", "a" * 70, "--keys", "k"], "no address of this machine"),
        (["--host", "192.0.2.1", "--keys", "k"], "--host 192.0.2.1: no address of this machine"),
        (["--certificate", __file__], "test_serve.py: cannot be read"),
    ],
)
def test_what_is_open_to_anybody_or_does_not_fit_is_refused(
    words: list[str], said: str, tmp_path: Path
) -> None:
    keys = tmp_path / "k"
    keys.write_text(f"cameras {'0' * 64}\n")
    done = invoke("serve", "model.onnx", *[keys if word == "k" else word for word in words])
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--drain-seconds", "inf"], "--drain-seconds inf: expected at least 0 and less than"),
        (["--drain-delay-seconds", "inf"], "--drain-delay-seconds inf: expected at least 0"),
        (["--max-delay-ms", "inf"], "--max-delay-ms inf: expected at least 0, and an end"),
    ],
)
def test_times_without_an_end_are_refused(
    tiny_model: TinyModel, words: list[str], said: str
) -> None:
    done = invoke("serve", tiny_model.path, "--port", 0, "--runtime", "onnxruntime", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_names_are_what_fits_into_an_address(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    (folder / "a.onnx").touch()
    file = str(folder / "a.onnx")
    assert named_files([file]) == {"a": folder / "a.onnx"}
    assert named_files([f"b={file}"]) == {"b": folder / "a.onnx"}
    assert named_files(["absent/lr=1/c.onnx"]) == {"c": Path("absent/lr=1/c.onnx")}
    for given in ("=m.onnx", "a b=m.onnx", "..=m.onnx", "my model.onnx", "ä=m.onnx", "a\n=m.onnx"):
        with pytest.raises(InputError, match="give it a name of letters"):
            named_files([given])


def test_two_models_of_one_name_are_refused() -> None:
    done = invoke("serve", "a/model.onnx", "b/model.onnx")
    assert done.returncode == 2
    assert "a second model called 'model'" in done.stderr


def test_sigterm_under_load_loses_nothing_that_was_accepted(tiny_model: TinyModel) -> None:
    """What the service says that it answered is what its clients got: each once, none lost."""
    image = cv2.imencode(".png", np.zeros((90, 40, 3), np.uint8))[1].tobytes()
    got: list[str] = []
    cut: list[str] = []
    stop = threading.Event()

    def ask(url: str, name: int) -> None:
        with httpx.Client(base_url=url, timeout=20) as http:
            for number in range(100_000):
                asked = f"{name}-{number}"
                if stop.is_set():
                    return
                try:
                    answer = http.post("/embed", content=image, headers={"x-request-id": asked})
                except httpx.TransportError:
                    cut.append(asked)
                    return
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-request-id"] == asked
                got.append(asked)

    words = [tiny_model.path, "--max-delay-ms", "20", "--log-json", "-v"]
    with served(*words) as (process, url), ThreadPoolExecutor(8) as pool:
        said: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        reader.start()
        asking = [pool.submit(ask, url, name) for name in range(8)]
        while len(got) < 100:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        stop.set()
        for one in asking:
            one.result(30)
        reader.join(10)
    lines = [json.loads(line) for line in said]
    answered = [line["request"] for line in lines if line.get("status") == 200]
    assert code == 0
    assert len(answered) == len(set(answered))
    assert sorted(answered) == sorted(got)
    assert len(cut) <= 8
    assert not any("Traceback" in line for line in said)


def test_sighup_opens_the_files_again(tiny_model: TinyModel) -> None:
    with served(tiny_model.path) as (process, url):
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while httpx.get(f"{url}/models").json()[0]["version"] != 2:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_second_signal_tells_those_who_wait_to_ask_again(tiny_model: TinyModel) -> None:
    image = cv2.imencode(".png", np.zeros((90, 40, 3), np.uint8))[1].tobytes()
    with (
        served(tiny_model.path, "--max-delay-ms", "30000", "--timeout-ms", "40000") as (serve, url),
        ThreadPoolExecutor(1) as pool,
    ):
        waits = pool.submit(httpx.post, f"{url}/embed", content=image, timeout=60)
        until = time.monotonic() + 20
        while 'sa_deploy_queue_crops{model="tiny0"} 1.0' not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.05)
        serve.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        serve.send_signal(signal.SIGTERM)
        answer = waits.result(30)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "ask again" in answer.json()["error"]
        assert serve.wait(40) == 4
        assert serve.stderr is not None
        assert "1 requests were cut off by the second signal" in serve.stderr.read()
