"""The service for minutes: ten thousand hostile requests, and ten minutes of honest ones."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from sa_deploy import Client
from tests.cli.test_serve import served
from tests.runtime.service.hostile import answers_of, disconnect, hostile, slow_answers

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
SECONDS = float(os.environ.get("SA_DEPLOY_SOAK_SECONDS", "600"))


def resident_mb(url: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    name = "\nprocess_resident_memory_bytes "
    return float(text.split(name)[1].split()[0]) / 1e6


@pytest.mark.soak
def test_ten_thousand_hostile_requests(tiny_model: TinyModel) -> None:
    words = [f"tiny0={tiny_model.path}", "--max-body-mb", "0.5", "--max-pixels", "1000000"]
    with served(*words) as (process, url):
        where = url.removeprefix("http://")
        answers_of(where, hostile(1000, seed=99))  # pools and arenas fill
        before = resident_mb(url)
        found: Counter[int | None] = Counter()
        slow: list[int | None] = []
        sender = threading.Thread(target=lambda: slow.extend(slow_answers(where, 300, every_s=1.0)))
        sender.start()
        for seed in range(10):
            found.update(answers_of(where, hostile(870, seed=seed)))
            disconnect(where, 100)
        sender.join()
        found.update(slow)
        after = resident_mb(url)
        print(f"{dict(found)}; resident {before:.1f} MB, then {after:.1f} MB")
        assert process.poll() is None
        assert found.total() + 1000 == 10_000
        # Half of them come as far as their body: for a tenth of a second the queue has 128 places.
        assert set(slow) <= {408, 429}
        assert slow.count(408) >= 150 + 128
        assert all(status is None or 400 <= status < 500 for status in found)
        assert after - before < 20
        with Client(url) as client:
            assert client.embed(np.zeros((1, 32, 16, 3), np.uint8)).shape == (1, 12)


@pytest.mark.soak
def test_memory_stays_flat_and_nothing_is_lost(tiny_model: TinyModel) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 60, 30, 3), dtype=np.uint8)
    counts = {"given": 0, "wrong": 0}
    lock, stop = threading.Lock(), threading.Event()
    with served(tiny_model.path) as (_, url):
        with Client(url) as client:
            expected = client.embed(images)

        def ask() -> None:
            with Client(url) as client:
                while not stop.is_set():
                    same = np.allclose(client.embed(images), expected, atol=2e-6)
                    with lock:
                        counts["given"] += len(images)
                        counts["wrong"] += not same
                    time.sleep(0.05)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        samples: list[float] = []
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(SECONDS / 40)
            samples.append(resident_mb(url))
        stop.set()
        for thread in threads:
            thread.join()
        stats = httpx.get(f"{url}/v2/models/tiny0/stats").json()["model_stats"][0]
    print(f"{counts}; resident {samples[4]:.1f} to {samples[-1]:.1f} MB: {samples}")
    assert counts["wrong"] == 0
    assert stats["inference_count"] == counts["given"] + len(images)
    assert stats["inference_stats"]["fail"]["count"] == 0
    # The first tenth fills pools and arenas.
    assert max(samples[4:]) - samples[4] < 10
