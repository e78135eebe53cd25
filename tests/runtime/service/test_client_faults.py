"""A client before a service that is away, restarts, storms, lies, or is none at all."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from sa_deploy import Client
from sa_runtime.errors import ContractError, InputError, RunnerError, SaDeployError
from sa_runtime.service.limits import Limits
from sa_runtime.service.server import Address
from tests.runtime.service.serving import serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
CROPS = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)


def answer(status: int, body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status} x\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[float]]]:
    """Who accepts a connection for each answer, says it, the last one for ever, and hangs up.

    Yields:
        The address, and when somebody asked.
    """
    asked: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    link.settimeout(5)
                    if link.recv(65536):
                        link.sendall(answers[min(len(asked), len(answers) - 1)])
                        asked.append(time.monotonic())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.fixture
def info(tiny_model: TinyModel) -> list[bytes]:
    """What a service says of its model."""
    listed = [{"name": "tiny0", "max_images": 64, "batch_size": 8, "max_body_mb": 32.0}]
    return [
        answer(200, json.dumps(listed).encode()),
        answer(200, tiny_model.contract.to_json().encode()),
    ]


def vectors(contract: Any, *headers: str, count: int = 3) -> bytes:
    space = f"x-feature-space: {contract.space}"
    return answer(200, np.ones((count, 12), "<f4").tobytes(), space, *headers)


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://:8000", "http://[::1",
        "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://127.0.0.1:x", "http://a b",
        "http://127.0.0.1:80/?a=b", "http://127.0.0.1/#a", "http://127.0.0.1\n", "http://u:p@h",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_at_once(url: str) -> None:
    with pytest.raises(InputError, match="expected an address such as") as told:
        Client(url)
    assert "u:p" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeout_s": 0}, "timeout_s=0: expected more than 0"),
        ({"timeout_s": float("inf")}, "timeout_s=inf"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"connections": 0}, "connections=0"),
        ({"key": "two\nlines"}, "`key`, or SA_DEPLOY_KEY: holds what no key does"),
        ({"key": "schlüssel"}, "holds what no key does"),
        ({"private_key": "key.pem"}, "private_key='key.pem': needs `certificate` too"),
    ],
)
def test_what_a_client_cannot_be_made_of_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        Client("http://127.0.0.1:1", **given)
    assert "schl" not in str(told.value)


@pytest.mark.parametrize("listed", [b"[]", b"{}", b"null", b"5", b'[{"name": 5}]', b"<html>", b""])
def test_another_server_is_told_from_one_of_this_package(listed: bytes) -> None:
    with (
        saying(answer(200, listed)) as (url, _),
        Client(url, timeout_s=10) as client,
        pytest.raises(SaDeployError, match=r"127\.0\.0\.1:\d+( 5)?: (not|no model|its contract)"),
    ):
        client.embed(CROPS)


def test_sizes_that_are_none_do_not_stop_a_client(tiny_model: TinyModel) -> None:
    listed = b'[{"name": "tiny0", "max_images": 0, "batch_size": 8, "max_body_mb": -1}]'
    contract = answer(200, tiny_model.contract.to_json().encode())
    one = vectors(tiny_model.contract, count=1)
    with saying(answer(200, listed), contract, one) as (url, _), Client(url) as client:
        assert client.embed(CROPS).shape == (3, 12)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (b"", "no answer in 1 s"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 999\r\n\r\nhalf", "no answer in 1 s"),
        (b"no HTTP at all\r\n\r\n", "no answer in 1 s"),
        (answer(200, b"short"), "its vectors are of space none"),
        (answer(500, b"<html>broken</html>"), r"x \(status 500\)"),
        (answer(302, b"", "location: http://127.0.0.1:1/"), "its vectors are of space none"),
        (answer(429, b"", "retry-after: ²".encode().decode("latin-1")), "no answer in 1 s"),
        (answer(429, b'{"error": 5}', "retry-after: 99999999999"), r"\(429 5\)"),
        (answer(503, b"[]", "retry-after: -5"), r"\(503 x\)"),
    ],
)
def test_answers_that_are_none_are_told(info: list[bytes], last: bytes, said: str) -> None:
    with (
        saying(*info, last) as (url, _),
        Client(url, timeout_s=1, connections=1) as client,
        pytest.raises(SaDeployError, match=said),
    ):
        client.embed(CROPS)


@pytest.mark.parametrize("stated", ["abc", "-4", "9999", "²", "1" * 5000])
def test_a_length_that_does_not_fit_is_told(
    tiny_model: TinyModel, info: list[bytes], stated: str
) -> None:
    last = vectors(tiny_model.contract, f"inference-header-content-length: {stated}")
    with (
        saying(*info, last) as (url, _),
        Client(url, timeout_s=5) as client,
        pytest.raises(RunnerError, match="an answer of 144 bytes"),
    ):
        client.embed(CROPS)


def test_a_storm_of_429_is_waited_out_no_sooner_than_it_says(
    tiny_model: TinyModel, info: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    busy = answer(429, b'{"error": "full"}', "retry-after: 1")
    with (
        caplog.at_level(logging.WARNING),
        saying(*info, busy, busy, vectors(tiny_model.contract)) as (url, asked),
        Client(url, timeout_s=30, connections=1) as client,
    ):
        assert client.embed(CROPS).shape == (3, 12)
    waits = np.diff(asked[2:])
    assert len(waits) == 2
    assert waits.min() >= 1
    assert not caplog.records  # many are asked again at a time: that fills no log


def test_a_client_goes_on_with_a_service_that_is_started_again(
    tiny_model: TinyModel, make_tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = Address(port=free.getsockname()[1])
    expected = tiny_model.embed(CROPS)
    with Client(f"http://127.0.0.1:{at.port}", timeout_s=60) as client:
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(client.embed(CROPS)))
        with caplog.at_level(logging.WARNING):
            asking.start()
            until = time.monotonic() + 30
            while "no answer yet" not in caplog.text:
                assert time.monotonic() < until
                time.sleep(0.01)
        with serving(tiny_model.path, at=at):
            asking.join(60)
            np.testing.assert_allclose(found[0], expected, atol=2e-6)
        with serving(tiny_model.path, at=at):
            np.testing.assert_allclose(client.embed(CROPS), expected, atol=2e-6)
        assert caplog.text.count("asking again") == 1
        with (
            serving(f"tiny0={make_tiny_model(seed=5).path}", at=at),
            pytest.raises(ContractError, match="Begin again with a new client"),
        ):
            client.embed(CROPS)


def test_files_are_sent_in_requests_that_the_service_takes(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 100, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path in paths:
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())  # of 60 kB
    with (
        serving(tiny_model.path, limits=Limits(max_body_mb=0.2)) as running,
        Client(running.url) as client,
    ):
        assert client.embed_paths(paths).shape == (6, 12)
        assert client.embed(np.zeros((300, 32, 16, 3), np.uint8)).shape == (300, 12)


def test_a_key_read_from_a_file_with_a_lines_end_is_a_key(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from sa_runtime.service.keys import Keys

    file = tmp_path / "keys"
    file.write_text(f"﻿cameras\t{hashlib.sha256(b'mine').hexdigest().upper()}\r\n")
    with serving(tiny_model.path, keys=Keys(file)) as running:
        for given in ("mine\n", "mine\r\n"):
            monkeypatch.setenv("SA_DEPLOY_KEY", given)
            with Client(running.url) as client:
                assert client.embed(CROPS).shape == (3, 12)
