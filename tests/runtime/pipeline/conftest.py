"""A runner of the tiny artefact; what a test of the pipeline starts has ended after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before, threading.enumerate()


@pytest.fixture
def runner(tiny_model: TinyModel) -> Iterator[BaseRunner]:
    with open_runner(tiny_model.path, "onnxruntime") as opened:
        yield opened
