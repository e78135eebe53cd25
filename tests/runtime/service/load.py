"""Clients that ask a service all the time, and note what became of every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import httpx
import numpy as np

from sa_deploy import Client
from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import SaDeployError


class Load:
    """Some of these clients ask again where it helps, as everybody's do; the others never.

    Args:
        url: of the service.
        images: crops that are asked for, (N, H, W, 3) at the model's size.
        timeout_s: of a client that asks again.

    Attributes:
        expected: their vectors, as the service gave them at first.
        good: when a client that asks again got them.
        wrong: when it got others.
        failed: what it was told instead.
        outcomes: what became of each request of the others, by its id: its status, 0 where the
            connection ended without one.
    """

    def __init__(self, url: str, images: Images, *, timeout_s: float) -> None:
        self._url, self._images, self._timeout_s = url, images, timeout_s
        with Client(url, timeout_s=timeout_s) as client:
            self.expected: Embeddings = client.embed(images)
        self.good: list[float] = []
        self.wrong: list[float] = []
        self.failed: list[str] = []
        self.outcomes: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, clients: int, *, with_ids: int = 0) -> None:
        asked: list[Callable[[], None]] = [self._ask] * clients
        asked += [partial(self._ask_once, number) for number in range(with_ids)]
        self._threads = [threading.Thread(target=one, daemon=True) for one in asked]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with Client(self._url, timeout_s=self._timeout_s) as client:
            while not self._stop.is_set():
                try:
                    found = client.embed(self._images)
                except SaDeployError as error:
                    self.failed.append(str(error)[:200])
                    continue
                self._note(found)

    def _ask_once(self, number: int) -> None:
        files = [("images", cv2.imencode(".png", one)[1].tobytes()) for one in self._images]
        count = 0
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while not self._stop.is_set():
                name, count = f"{number}-{count}", count + 1
                try:
                    answer = http.post("/embed", files=files, headers={"x-request-id": name})
                except httpx.TransportError:
                    self.outcomes[name] = 0
                    time.sleep(0.05)
                    continue
                self.outcomes[name] = answer.status_code
                if answer.status_code == 200:
                    self._note(answer.json()["vectors"])

    def _note(self, found: Any) -> None:
        same = np.allclose(found, self.expected, atol=2e-6)
        (self.good if same else self.wrong).append(time.monotonic())
