"""How long a client waits for a service that is not there, is away, or is closed meanwhile."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from sa_deploy import AsyncClient, Client
from sa_runtime.errors import RunnerError
from sa_runtime.service.attempts import Attempts, Patience
from sa_runtime.service.limits import Limits
from tests.runtime.service.serving import serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
CROPS = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_an_address_at_which_nobody_ever_answered_is_told_soon(nowhere: str) -> None:
    async def ask() -> None:
        async with AsyncClient(nowhere, connect_timeout_s=0.5) as client:
            await client.embed(CROPS)

    with Client(nowhere) as client:
        assert (client.timeout_s, client.connect_timeout_s) == (60, 10)
    with Client(nowhere, timeout_s=5) as client:
        assert client.connect_timeout_s == 5
    began = time.monotonic()
    with (
        Client(nowhere, connect_timeout_s=0.5) as client,
        pytest.raises(RunnerError, match=r"nobody answers there .*refused.* tried for 0\.5 s"),
    ):
        client.embed(CROPS)
    with pytest.raises(RunnerError, match="a longer `connect_timeout_s` waits longer"):
        asyncio.run(ask())
    assert time.monotonic() - began < 10


def test_a_service_that_was_there_is_waited_for_and_asked_every_two_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused, answer = httpx.ConnectError("Connection refused"), httpx.Response(200)
    patience = Patience("http://h", 60, 0.2)
    assert Attempts(patience).pause_s(answer) is None
    for times in (1, 2):  # away twice
        attempts = Attempts(patience)
        pauses = [attempts.pause_s(refused) or 0.0 for _ in range(20)]
        assert pauses[0] <= 0.1
        assert 1 <= pauses[-1] <= 2
        assert max(pauses) <= 2
        assert caplog.text.count("no answer yet (Connection refused)") == times
        assert attempts.pause_s(answer) is None
    busy = httpx.Response(429, headers={"retry-after": "3"})
    attempts = Attempts(patience)
    assert all(3 <= (attempts.pause_s(busy) or 0.0) <= 5 for _ in range(20))


def test_one_failure_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that nobody used for a while may have been closed by the service."""
    with caplog.at_level(logging.DEBUG):
        attempts = Attempts(Patience("http://h", 60, 10, reached=True))
        assert attempts.pause_s(httpx.RemoteProtocolError("disconnected")) is not None
        assert attempts.pause_s(httpx.Response(200)) is None
    assert not caplog.records


def test_the_time_of_a_request_begins_when_it_is_its_turn(tiny_model: TinyModel) -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url, timeout_s=2, connections=1) as client:
            found = await client.embed(CROPS)  # in four requests, one after another, of 0.7 s
            np.testing.assert_allclose(found, tiny_model.embed(CROPS), atol=2e-6)

    with serving(tiny_model.path, max_delay_ms=700, limits=Limits(max_images=1)) as running:
        began = time.monotonic()
        asyncio.run(ask(running.url))
        assert time.monotonic() - began > 2


@pytest.mark.parametrize("holds", [False, True], ids=["nobody there", "no answer"])
def test_a_client_that_is_closed_waits_no_more(nowhere: str, holds: bool) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}" if holds else nowhere
        client = Client(url, connect_timeout_s=60)

        def ask() -> None:
            with pytest.raises(RunnerError) as told:
                client.embed(CROPS)
            said.append(str(told.value))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        client.close()
        asking.join(10)
    assert said == [f"{url}: the client was closed before an answer came"]
