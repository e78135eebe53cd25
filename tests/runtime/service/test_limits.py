"""What is too much, too large, too slow or malformed: refused with a word, and no harm."""

from __future__ import annotations

import hashlib
import json
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

from sa_runtime.service.keys import Keys
from sa_runtime.service.limits import Limits
from tests.runtime.service.hostile import answers_of, disconnect, hostile, slow_answers
from tests.runtime.service.serving import Running, serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
FORM = {"content-type": "multipart/form-data; boundary=b"}
LIMITS = Limits(
    max_body_mb=0.5,
    max_bodies_mb=2.0,
    max_pixels=1_000_000,
    max_images=16,
    max_requests=32,
    queue_crops=32,
    timeout_ms=3000,
    read_timeout_s=0.6,
    write_timeout_s=1.0,
)


@pytest.fixture(scope="module")
def running(tiny_model: TinyModel) -> Iterator[Running]:
    with serving(tiny_model.path, limits=LIMITS) as found:
        yield found


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url) as client:
        yield client


def png(height: int = 40, width: int = 20) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header announces a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("request_of", "status", "said"),
    [
        ({"content": b"hello"}, 415, "image 0: not an image (5 bytes)"),
        ({"content": b""}, 415, "image 0: not an image (0 bytes)"),
        ({"content": png()[:-100]}, 422, "image 0: not a whole image"),
        ({"content": bomb(60_000, 60_000)}, 413, "60000x60000 pixels, expected at most 1 million"),
        ({"content": b"a" * 600_000}, 413, "a body of 0.6 MB, expected at most 0.5"),
        ({"content": png(), "headers": {"content-type": "text/html"}}, 415, "'text/html'"),
        ({"content": png(), "headers": {"content-encoding": "gzip"}}, 415, "a compressed body"),
        ({"content": png(), "params": {"boxes": "[[0,0,1"}}, 400, "boxes: not JSON"),
        ({"content": png(), "params": {"boxes": "[[0,0,1]]"}}, 400, "box 0: expected four"),
        ({"content": png(), "params": {"boxes": "[[90,90,99,99]]"}}, 422, "box 0"),
        ({"content": png(), "params": {"boxes": str([[0, 0, 9, 9]] * 17)}}, 413, "17 people"),
        ({"content": png(), "params": {"model": "x"}}, 404, "no model 'x'; expected one of tiny0"),
        ({"content": png(), "params": {"timeout_ms": "soon"}}, 400, "timeout_ms"),
        ({"json": {"images": ["&&&"]}}, 400, "image 0: not base64"),
        ({"json": [1]}, 400, "a JSON list, expected an object"),
        ({"json": {}}, 400, "expected images"),
        ({"files": [("images", ("a", png()))] * 17}, 400, "Too many files"),
        ({"content": b"--b\r\n", "headers": FORM}, 400, "the last boundary is missing"),
        ({"data": {"images": "text"}, "files": {"images": b""}}, 400, "expected files"),
    ],
)
def test_a_refusal_says_what_was_expected(
    http: httpx.Client, request_of: dict[str, Any], status: int, said: str
) -> None:
    answer = http.post("/embed", **request_of)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inputs": []}, "expected one input, 'images'"),
        ({"shape": [1, 32, 16, 4]}, "shape [1, 32, 16, 4], expected [N, 32, 16, 3]"),
        ({"shape": [True, 32, 16, 3]}, "shape"),
        ({"shape": [-1, 32, 16, 3]}, "-1 images"),
        ({"shape": [10**12, 32, 16, 3]}, "1000000000000 images"),
        ({"datatype": "FP32"}, "datatype FP32, expected UINT8"),
        ({"name": "x"}, "input 'x': the model takes 'images'"),
        ({"data": [0] * 5}, "data of 5 values"),
        ({"data": [300] * 1536}, "data outside 0 to 255"),
        ({"data": [0.5] * 1536}, "float64"),
        ({"data": [[0], [0, 1]]}, "data of uneven rows"),
        ({"outputs": [{"name": "x"}]}, "the model gives 'embeddings' alone"),
        ({"parameters": {"timeout": "1"}}, "timeout: expected microseconds"),
        ({"id": 5}, "id: expected a text"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    http: httpx.Client, fields: dict[str, Any], said: str
) -> None:
    tensor = {"name": "images", "shape": [1, 32, 16, 3], "datatype": "UINT8", "data": [0] * 1536}
    body = {"inputs": [{**tensor, **{k: v for k, v in fields.items() if k in tensor}}]}
    body |= {k: v for k, v in fields.items() if k not in tensor}
    answer = http.post("/v2/models/tiny0/infer", content=json.dumps(body))
    assert answer.status_code in (400, 413)
    assert said in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "99999999", "1e3", "9" * 400, "0x10", "٣"])
def test_lengths_that_are_none_are_refused(http: httpx.Client, length: str) -> None:
    headers = {b"inference-header-content-length": length.encode()}
    answer = http.post("/v2/models/tiny0/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400


def test_a_slow_sender_is_cut_off(running: Running) -> None:
    host, port = running.host.split(":")
    for sent in (
        b"",
        b"POST /embed HTT",
        b"POST /embed HTTP/1.1\r\nhost: x\r\n",
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as link:
            began = time.monotonic()
            link.sendall(sent)
            said = link.recv(4000)
            assert said.startswith(b"HTTP/1.1 408"), (sent, said)
            while link.recv(4000):
                pass
            assert 0.4 < time.monotonic() - began < 5
    assert running.service.gate.requests == 0


def test_endless_headers_are_cut_off(running: Running) -> None:
    host, port = running.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(b"GET /v2 HTTP/1.1\r\n")
        endless = b"".join(b"x-%d: %s\r\n" % (index, b"a" * 1000) for index in range(20_000))
        with pytest.raises(ConnectionError):
            link.sendall(endless)


def test_who_does_not_take_an_answer_is_cut_off(running: Running) -> None:
    host, port = running.host.split(":")
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect((host, int(port)))
    ask = b"GET /docs/files/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n"
    link.sendall(ask * 8)
    until = time.monotonic() + 10
    counter = 'sa_deploy_refused_total{reason="slow"}'
    while time.monotonic() < until:
        text = httpx.get(f"{running.url}/metrics").text
        if counter in text and float(text.split(counter)[1].split()[0]) >= 1:
            break
        time.sleep(0.1)
    else:
        pytest.fail("nobody was cut off")
    link.close()


def test_a_client_that_goes_away_leaves_nothing_behind(running: Running) -> None:
    host, port = running.host.split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as link:
            link.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 400000\r\n\r\nabc")
    until = time.monotonic() + 30
    while running.service.gate.requests and time.monotonic() < until:
        time.sleep(0.02)
    assert (running.service.gate.requests, running.service.gate.held_bytes) == (0, 0)


def test_who_goes_away_while_he_waits_for_a_batch_is_not_run(tiny_model: TinyModel) -> None:
    with serving(tiny_model.path, max_delay_ms=60_000, batch_size=8) as running:
        host, port = running.host.split(":")
        (served,) = running.service.models
        head = f"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: {len(png())}\r\n\r\n"
        with socket.create_connection((host, int(port))) as link:
            link.sendall(head.encode() + png())
            until = time.monotonic() + 30
            while not served.batcher.waiting:
                assert time.monotonic() < until
                time.sleep(0.01)
        while served.batcher.waiting or running.service.gate.requests:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert served.statistics.batches == 0
        text = httpx.get(f"{running.url}/metrics").text
        assert 'sa_deploy_refused_total{reason="gone"} 1.0' in text


def test_a_request_may_ask_for_less_time(tiny_model: TinyModel) -> None:
    with (
        serving(tiny_model.path, max_delay_ms=2000, batch_size=8) as running,
        httpx.Client(base_url=running.url) as http,
    ):
        began = time.monotonic()
        answer = http.post("/embed?timeout_ms=100", content=png())
        assert answer.status_code == 504, answer.text
        assert "no answer in time" in answer.json()["error"]
        assert time.monotonic() - began < 1.5
        served = running.service.models.get()
        served.batcher.submit(np.zeros((8, 32, 16, 3), np.uint8))
        while not served.batcher.crops_per_s:  # so that what a crop would have to wait is known
            time.sleep(0.01)
        over = http.post("/embed?timeout_ms=0.001", content=png())  # when its body was read
        assert over.status_code == 504, over.text


def test_overload_is_refused_at_once_and_the_accepted_are_answered(tiny_model: TinyModel) -> None:
    """Forty clients and a queue for eight crops."""
    few = Limits(max_images=4, queue_crops=8)
    crops = np.random.default_rng(1).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "shape": [4, 32, 16, 3],
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": crops.nbytes},
                }
            ]
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head))}
    expected = tiny_model.embed(crops)
    with serving(tiny_model.path, limits=few, max_delay_ms=100, batch_size=64) as running:
        start = threading.Barrier(40)

        def one(index: int) -> httpx.Response:
            with httpx.Client(base_url=running.url) as http:
                start.wait(10)
                return http.post(
                    "/v2/models/tiny0/infer", content=head + crops.tobytes(), headers=headers
                )

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(one, range(40)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(429) >= 20
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert "come again" in answer.json()["error"]
        else:
            found = np.reshape(answer.json()["outputs"][0]["data"], (4, 12))
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_kept_connection_is_refused_by_its_headers_alone_and_goes_on(
    tiny_model: TinyModel,
) -> None:
    few = Limits(max_images=4, queue_crops=4, read_timeout_s=0.5)
    with (
        serving(tiny_model.path, limits=few, max_delay_ms=60_000, batch_size=64) as running,
        httpx.Client(base_url=running.url) as http,
    ):
        (served,) = running.service.models
        assert http.get("/v2").status_code == 200
        ticket = served.batcher.submit(np.zeros((4, 32, 16, 3), np.uint8))
        for path in ("/embed", "/v2/models/tiny0/infer"):
            for _ in range(3):
                answer = http.post(path, content=png())
                assert answer.status_code == 429
                assert "4 crops wait and 4 may; come again in 1 s" in answer.json()["error"]
                assert answer.headers["retry-after"] == "1"
                assert len(answer.headers["x-request-id"]) == 18
        named = http.post("/embed", content=png(), headers={"x-request-id": "mine"})
        assert (named.status_code, named.headers["x-request-id"]) == (429, "mine")
        assert http.get("/v2").status_code == 200  # what is refused is not what stands behind it
        text = http.get("/metrics").text
        assert 'sa_deploy_refused_total{reason="overload"} 7.0' in text
        for route, count in (("/embed", 4), ("/v2/models/{name}/infer", 3)):
            counted = f'sa_deploy_requests_total{{route="{route}",status="429"}} {count}.0'
            assert counted in text
        host, port = running.host.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as link:
            link.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert link.recv(4000).startswith(b"HTTP/1.1 200")
            link.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc")
            assert link.recv(4000).startswith(b"HTTP/1.1 429")
            began = time.monotonic()
            assert link.recv(4000) == b""  # nobody waits for the rest for ever
            assert time.monotonic() - began < 8
        served.batcher.cancel(ticket)
        assert http.post("/embed?timeout_ms=50", content=png()).status_code == 504


def test_places_are_kept_for_bodies_on_their_way_and_the_others_are_refused_at_once(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight send their headers alone, with keys, where four find a place."""
    monkeypatch.setattr("sa_runtime.service.admission.PLACE_S", 60.0)
    keys = tmp_path / "keys"
    keys.write_text(f"cameras {hashlib.sha256(b'mine').hexdigest()}\n")
    few = Limits(max_images=4, queue_crops=4)
    with serving(tiny_model.path, limits=few, keys=Keys(keys)) as running, ExitStack() as stack:
        host, port = running.host.split(":")
        links = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            for _ in range(8)
        ]
        body = png()

        def head(key: str) -> bytes:
            return (
                f"POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            ).encode()

        for link in links:  # kept connections are refused before anything of theirs is read
            link.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert link.recv(4000).startswith(b"HTTP/1.1 200")
        waiting: list[socket.socket] = []
        for link in links:
            link.sendall(head("mine"))
            if select.select([link], [], [], 10.0 if len(waiting) == 4 else 0.1)[0]:
                assert link.recv(4000).startswith(b"HTTP/1.1 429")
            else:
                waiting.append(link)
        assert len(waiting) == 4
        links[-1].sendall(body + head("stolen"))
        assert links[-1].recv(4000).startswith(b"HTTP/1.1 401")
        waiting.pop().close()  # who goes away leaves his place to others
        for link in waiting:
            link.sendall(body)
            assert link.recv(4000).startswith(b"HTTP/1.1 200")
        with httpx.Client(base_url=running.url, headers={"authorization": "Bearer mine"}) as http:
            assert http.post("/embed", content=body).status_code == 200
            assert http.post("/embed", content=body).status_code == 200


def test_an_answer_without_a_body_is_whole(http: httpx.Client) -> None:
    assert http.head("/metrics").status_code == 405
    assert http.head("/v2/health/live").status_code == 200
    assert http.get("/v2/health/live").status_code == 200


def test_hostile_requests_get_4xx_and_do_no_harm(running: Running) -> None:
    statuses = answers_of(running.host, hostile(300, seed=1))
    assert len(statuses) == 300
    assert all(status is None or 400 <= status < 500 for status in statuses), statuses
    assert sum(status is not None for status in statuses) > 270
    disconnect(running.host, 30)
    assert slow_answers(running.host, 20, every_s=0.1) == [408] * 20
    with httpx.Client(base_url=running.url) as http:
        assert http.post("/embed", content=png()).status_code == 200
        assert http.get("/v2/health/ready").status_code == 200
    until = time.monotonic() + 30
    while running.service.gate.requests and time.monotonic() < until:
        time.sleep(0.02)
    assert (running.service.gate.requests, running.service.gate.held_bytes) == (0, 0)
