"""Files that change under a service: models, keys, what canaries are held against."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import uvicorn

from sa_deploy import Client
from sa_runtime.artefact.reference import REFERENCE_KEY, make_reference
from sa_runtime.errors import InputError
from sa_runtime.service.app import Service
from sa_runtime.service.keys import Keys
from sa_runtime.service.models import Models, ModelSettings, Served
from sa_runtime.service.server import Address, Server, bound
from tests.runtime.service.serving import serving
from tests.runtime.service.test_operated import crops, eventually, key_line

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def threads_of_batches() -> int:
    return sum(thread.name.startswith("sa-batches") for thread in threading.enumerate())


def test_many_swaps_at_a_time_are_made_one_after_the_other(tiny_model: TinyModel) -> None:
    with serving(tiny_model.path) as running:
        load = f"{running.url}/v2/repository/models/tiny0/load"
        with ThreadPoolExecutor(6) as pool:
            done = list(pool.map(lambda _: httpx.post(load, timeout=30), range(12)))
        assert [answer.status_code for answer in done] == [200] * 12
        # Each took the place of another one, and none is left behind.
        assert sorted(answer.json()["version"] for answer in done) == list(range(2, 14))
        assert threads_of_batches() == 1


def test_a_storm_of_signals_opens_the_files_twice_at_most(
    tiny_model: TinyModel,
) -> None:
    with serving(tiny_model.path) as running:
        loop = running.server.servers[0].get_loop()
        for _ in range(50):
            loop.call_soon_threadsafe(running.server.read_again)
        eventually(lambda: next(iter(running.service.models)).version > 1)
        time.sleep(0.3)
        assert next(iter(running.service.models)).version <= 3


@pytest.mark.parametrize("body", [{"parameters": {"any_space": "true"}}, {"parameters": 5}, [1]])
def test_a_space_is_not_given_up_by_a_word_that_is_misspelt(
    tiny_model: TinyModel, body: object
) -> None:
    with serving(tiny_model.path) as running:
        load = f"{running.url}/v2/repository/models/tiny0/load"
        refused = httpx.post(load, json=body)
        assert (refused.status_code, "any_space" in refused.text) == (400, True)


def test_the_canary_goes_on_when_the_file_is_gone_and_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    from tests.tiny_onnx import write_tiny_onnx

    path = tmp_path / "model.onnx"
    model = write_tiny_onnx(path, height=32, width=16, dim=12, seed=1, max_batch=None)
    proto = onnx.load(path)
    entry = proto.metadata_props.add()
    entry.key, entry.value = REFERENCE_KEY, make_reference(model.embed(crops(100)))
    onnx.save(proto, path)
    looks: list[str] = []
    check = Served.check

    def counted(served: Served) -> None:
        looks.append(served.name)
        check(served)
        if len(looks) == 4:
            raise ZeroDivisionError("of some library")

    monkeypatch.setattr(Served, "check", counted)
    with serving(path, check_s=0.02) as running, Client(running.url) as client:
        path.unlink()
        client.embed(crops(100))
        eventually(lambda: len(looks) > 8)
        drift = [line for line in httpx.get(f"{running.url}/metrics").text.splitlines()
                 if line.startswith("sa_deploy_drift{")]  # fmt: skip
        assert len(drift) == 4
        assert httpx.get(f"{running.url}/v2/health/ready").json() == {"live": True, "ready": True}


def test_keys_that_others_may_write_are_taken_once_they_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_runtime.service.keys.LOOK_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(key_line("cameras", "old"))
    keys = Keys(file)
    file.write_text(key_line("cameras", "new"))
    file.chmod(0o666)
    assert keys.holder("new") is None
    file.chmod(0o644)
    assert keys.holder("new") is not None
    assert keys.holder("old") is None
    file.unlink()
    assert keys.holder("new") is not None


def test_a_port_that_was_taken_while_models_were_opened_is_named(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(self: uvicorn.Server, sockets: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(uvicorn.Server, "startup", taken)  # the moment cannot be met at will
    service = Service(Models({"m": tiny_model.path}, ModelSettings(runtime="onnxruntime")))
    listening, address = bound(Address(port=0))
    with listening, pytest.raises(InputError, match=f"port={address.port}: cannot listen on 127"):
        asyncio.run(Server(service, address, listening).startup([listening]))


@pytest.mark.skipif(os.name != "posix", reason="limits of open files are of POSIX")
def test_as_many_files_may_be_open_as_connections_need(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    from sa_runtime.service import server

    set_to: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_to.append(limits))
    for now, most in ((256, 4096), (256, 1000), (256, resource.RLIM_INFINITY), (2000, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, now=now, most=most: (now, most))
        server._allow_files(1280)
    assert set_to == [(1280, 4096), (1000, 1000), (1280, resource.RLIM_INFINITY)]


def test_vectors_before_a_swap_to_another_space_are_not_called_drift(
    tmp_path: Path,
) -> None:
    from sa_runtime.artefact.reference import read_reference
    from sa_runtime.service.drift import Drift
    from tests.tiny_onnx import write_tiny_onnx

    size: dict[str, Any] = {"height": 32, "width": 16, "dim": 12, "max_batch": None}
    models = [write_tiny_onnx(tmp_path / f"{n}.onnx", seed=n, **size) for n in (1, 2)]

    class Watched:
        name = "model"

        def __init__(self, model: TinyModel) -> None:
            self.contract = model.contract
            self.reference = read_reference(make_reference(model.embed(crops(100))))

    before, after = (Watched(model) for model in models)
    drift = Drift()
    vectors = models[0].embed(crops(100))
    drift.add(before, vectors)
    assert abs(drift.measure(before)["mean"]) < 0.01
    assert drift.measure(after) == {}
    drift.add(after, models[1].embed(crops(70)))
    assert set(drift.measure(after)) == {"mean", "variance", "nearest", "spectrum"}
    np.testing.assert_equal(drift.measure(before), {})


def test_an_application_that_does_not_start_says_why(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Service) -> None:
        raise ZeroDivisionError("of some library")

    service = Service(Models({"m": tiny_model.path}, ModelSettings(runtime="onnxruntime")))
    monkeypatch.setattr(Service, "open", broken)
    listening, address = bound(Address(port=0))
    with listening, pytest.raises(RuntimeError, match="the application did not start"):
        Server(service, address, listening).serve_until_stopped()
    assert "of some library" in caplog.text
