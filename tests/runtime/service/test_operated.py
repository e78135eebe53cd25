"""A service that is watched and changed while it runs: keys, canaries, drift, swaps, traces."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sa_deploy import Client
from sa_runtime.artefact.reference import REFERENCE_KEY, make_reference
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.service.canary import canary_cosine, known_canary
from sa_runtime.service.drift import Drift
from sa_runtime.service.keys import Keys
from tests.runtime.service.serving import serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def crops(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def value(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def key_line(name: str, key: str, *, admin: bool = False) -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}{' admin' if admin else ''}\n"


def test_prometheus_reads_what_went_on(tiny_model: TinyModel) -> None:
    with serving(tiny_model.path) as running, Client(running.url) as client:
        client.embed(crops(5))
        grey = np.full((40, 20, 3), 90, np.uint8)
        client.embed([grey])
        httpx.post(f"{running.url}/embed", content=b"no image")
        httpx.get(f"{running.url}/nothing")
        text = httpx.get(f"{running.url}/metrics").text
    tiny = {"model": "tiny0"}
    route = "/v2/models/{name}/infer"
    assert value(text, "sa_deploy_requests_total", route=route, status="200") == 2
    assert value(text, "sa_deploy_requests_total", route="/embed", status="415") == 1
    assert value(text, "sa_deploy_requests_total", route="none", status="404") == 1
    assert value(text, "sa_deploy_refused_total", reason="not an image") == 1
    assert value(text, "sa_deploy_people_total", **tiny) == 6
    assert value(text, "sa_deploy_batch_crops_sum", **tiny) == 6
    assert value(text, "sa_deploy_flat_images_total", **tiny) == 1
    assert value(text, "sa_deploy_model_ready", **tiny) == 1
    assert value(text, "sa_deploy_canary_cosine", **tiny) > 0.999
    assert value(text, "sa_deploy_model_info", space=tiny_model.contract.space) == 1
    for stage in ("read", "decode", "queue", "infer", "write", "total"):
        assert value(text, "sa_deploy_request_seconds_count", stage=stage) == 2
    parts = sum(
        value(text, "sa_deploy_request_seconds_sum", stage=stage)
        for stage in ("read", "decode", "queue", "infer", "write")
    )
    assert parts <= value(text, "sa_deploy_request_seconds_sum", stage="total") + 1e-3
    assert value(text, "process_resident_memory_bytes") > 1e6


def test_what_alerts_rise_from_is_at_zero_before_it_happens(tiny_model: TinyModel) -> None:
    """Prometheus sees a series that begins at 1 rise by nothing: its alert would never fire."""
    with serving(tiny_model.path) as running:
        text = httpx.get(f"{running.url}/metrics").text
    for line in (
        'sa_deploy_bad_vectors_total{kind="not finite",model="tiny0"}',
        'sa_deploy_bad_vectors_total{kind="zero norm",model="tiny0"}',
        'sa_deploy_failed_crops_total{model="tiny0"}',
        'sa_deploy_flat_images_total{model="tiny0"}',
        'sa_deploy_people_total{model="tiny0"}',
        'sa_deploy_refused_total{reason="overload"}',
    ):
        assert f"{line} 0.0" in text.splitlines()


def test_keys_are_asked_for_and_change_without_a_restart(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_runtime.service.keys.LOOK_S", 0.0)
    file = tmp_path / "keys"
    file.write_text("# cameras\n" + key_line("cameras", "old"))
    with serving(tiny_model.path, keys=Keys(file)) as running:
        assert httpx.get(f"{running.url}/v2/health/ready").status_code == 200
        for headers in ({}, {"authorization": "Bearer new"}, {"authorization": "Basic old"}):
            answer = httpx.get(f"{running.url}/metrics", headers=headers)
            assert answer.status_code == 401
            assert "Bearer KEY" in answer.json()["error"]
        with Client(running.url, key="old") as client:
            assert client.embed(crops(1)).shape == (1, 12)
            file.write_text(key_line("cameras", "old") + key_line("cameras", "new"))
            assert client.embed(crops(1)).shape == (1, 12)
        monkeypatch.setenv("SA_DEPLOY_KEY", "new")
        with Client(running.url) as client:
            assert client.embed(crops(1)).shape == (1, 12)
            file.write_text("not a key file")  # a mistake locks nobody out
            assert client.embed(crops(1)).shape == (1, 12)
            file.write_text(key_line("others", "third"))
            with pytest.raises(InputError, match="no valid key"):
                client.embed(crops(1))


def test_a_file_of_keys_is_read_strictly_and_never_quoted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(InputError, match="cannot be read"):
        Keys(file)
    file.write_text("# none\n")
    with pytest.raises(InputError, match="no key in it"):
        Keys(file)
    file.write_text("name secret-in-the-clear\n")
    with pytest.raises(InputError, match="line 1 is not NAME and 64") as told:
        Keys(file)
    assert "secret" not in str(told.value)
    line = key_line("cameras", "mine")
    file.write_text(line + line.replace("cameras", "others"))
    with pytest.raises(InputError, match="line 2 has the key of a line before it"):
        Keys(file)
    file.write_text(line)
    file.chmod(0o666)
    with pytest.raises(InputError, match="others may write it, and let anybody in"):
        Keys(file)
    file.chmod(0o644)
    assert Keys(file).holder("mine") == ("cameras", False)


def test_only_an_admin_swaps_models_where_keys_are_asked_for(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(key_line("cameras", "a") + key_line("boss", "b", admin=True))
    with serving(tiny_model.path, keys=Keys(file)) as running:
        load = f"{running.url}/v2/repository/models/tiny0/load"
        assert httpx.post(load, headers={"authorization": "Bearer a"}).status_code == 403
        done = httpx.post(load, headers={"authorization": "Bearer b"})
        assert (done.status_code, done.json()["version"]) == (200, 2)


def test_a_swap_loses_no_request_and_another_space_is_refused(tmp_path: Path) -> None:
    from tests.tiny_onnx import write_tiny_onnx

    path = tmp_path / "model.onnx"
    size: dict[str, Any] = {"height": 32, "width": 16, "dim": 12, "max_batch": None}
    model = write_tiny_onnx(path, seed=1, **size)
    other = write_tiny_onnx(tmp_path / "other.onnx", seed=2, **size)
    images = crops(40)
    expected = model.embed(images)
    with serving(path) as running:
        load = f"{running.url}/v2/repository/models/model/load"
        stop, wrong, asked = threading.Event(), list[str](), list[int]()

        def ask() -> None:
            with Client(running.url) as client:
                while not stop.is_set():
                    found = client.embed(images)
                    asked.append(len(found))
                    if not np.allclose(found, expected, atol=2e-6):
                        wrong.append("other vectors")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (2, 3, 4):
            done = httpx.post(load, timeout=20)
            assert (done.status_code, done.json()["version"]) == (200, version)
        shutil.copy(other.path, path)
        refused = httpx.post(load, timeout=20)
        assert refused.status_code == 409
        assert "do not compare" in refused.json()["error"]
        path.write_bytes(b"broken")
        assert httpx.post(load, timeout=20).status_code == 409
        stop.set()
        for thread in threads:
            thread.join(20)
        assert (wrong, len(asked) > 4) == ([], True)
        shutil.copy(other.path, path)
        done = httpx.post(load, json={"parameters": {"any_space": True}}, timeout=20)
        assert (done.status_code, done.json()["space"]) == (200, "tiny-2")
        with Client(running.url) as client:
            np.testing.assert_allclose(client.embed(images), other.embed(images), atol=2e-6)


def test_a_runtime_that_is_off_makes_the_service_unready_until_it_is_right_again(
    tiny_model: TinyModel,
) -> None:
    with serving(tiny_model.path, check_s=0.05) as running:
        ready = f"{running.url}/v2/health/ready"
        assert httpx.get(ready).status_code == 200
        (served,) = running.service.models
        right = served._canary
        served._canary = right._replace(vectors=-right.vectors)
        eventually(lambda: httpx.get(ready).status_code == 503)
        assert "cosine -1" in served.fault
        index = httpx.post(f"{running.url}/v2/repository/index").json()
        assert index[0]["state"] == "UNAVAILABLE"
        assert httpx.get(f"{running.url}/v2/models/tiny0/ready").status_code == 503
        assert httpx.get(f"{running.url}/v2/health/live").status_code == 200
        served._canary = right
        eventually(lambda: httpx.get(ready).status_code == 200)


def test_a_canary_of_another_model_is_noticed(
    tiny_model: TinyModel, make_tiny_model: Callable[..., TinyModel]
) -> None:
    from sa_runtime.runners.opening import open_runner

    with open_runner(tiny_model.path, "onnxruntime") as mine:
        canary = known_canary(mine)
        assert canary_cosine(mine, canary) > 0.9999
        with (
            open_runner(make_tiny_model(seed=9).path, "onnxruntime") as other,
            pytest.raises(RunnerError, match="canary crops come out with cosine"),
        ):
            canary_cosine(other, canary)


def test_drift_is_near_nothing_for_the_same_people_and_large_for_others(tmp_path: Path) -> None:
    import onnx

    from tests.tiny_onnx import write_tiny_onnx

    path = tmp_path / "model.onnx"
    model = write_tiny_onnx(path, height=32, width=16, dim=12, seed=1, max_batch=None)
    day = crops(400, seed=1)
    proto = onnx.load(path)
    entry = proto.metadata_props.add()
    entry.key, entry.value = REFERENCE_KEY, make_reference(model.embed(day))
    onnx.save(proto, path)

    def drift(images: Any) -> dict[str, float]:
        with serving(path, check_s=0.05) as running, Client(running.url) as client:
            client.embed(images)
            (served,) = running.service.models
            eventually(lambda: "sa_deploy_drift{" in httpx.get(f"{running.url}/metrics").text)
            text = httpx.get(f"{running.url}/metrics").text
            assert Drift().measure(served) == {}  # few vectors say nothing
        return {
            kind: value(text, "sa_deploy_drift", model="model", kind=kind)
            for kind in ("mean", "variance", "nearest", "spectrum")
        }

    same = drift(crops(400, seed=2))
    night = drift((crops(400, seed=3) // 6) + np.uint8(5))
    assert all(abs(size) < 0.3 for size in same.values()), same
    assert night["mean"] > 0.6
    assert night["variance"] < -1
    assert night["nearest"] < -1


def test_a_trace_has_the_stages_and_the_callers_parent(tiny_model: TinyModel) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    parent = "4bf92f3577b34da6a3ce929d0e0e4736"
    with serving(tiny_model.path) as running:
        image = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
        answer = httpx.post(
            f"{running.url}/embed",
            content=image,
            headers={"traceparent": f"00-{parent}-00f067aa0ba902b7-01", "x-request-id": "my-1"},
        )
        assert answer.headers["x-request-id"] == "my-1"
    eventually(lambda: len(exporter.get_finished_spans()) == 6)
    spans: dict[str, Any] = {span.name: span for span in exporter.get_finished_spans()}
    whole = spans["POST /embed"]
    assert f"{whole.context.trace_id:032x}" == parent
    assert whole.attributes["sa_deploy.people"] == 1
    for name in ("read", "decode", "queue", "infer", "write"):
        assert spans[name].parent.span_id == whole.context.span_id
        assert spans[name].end_time <= whole.end_time + 10**7


def test_all_files_are_read_again_on_request(tiny_model: TinyModel) -> None:
    with serving(tiny_model.path) as running:
        loop = running.server.servers[0].get_loop()
        loop.call_soon_threadsafe(running.service.reload_all)
        eventually(lambda: next(iter(running.service.models)).version == 2)
