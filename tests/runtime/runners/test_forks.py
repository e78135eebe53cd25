"""A runner in a process that was forked from the one that opened it, with real forks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def forked(runtime: str, model: Path) -> dict[str, Any]:
    """What ``forking.py`` printed."""
    script = [sys.executable, "-m", "tests.runtime.runners.forking", runtime, str(model)]
    done = subprocess.run(
        script,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("runtime", "artefact"),
    [("openvino", "onnx"), ("onnxruntime", "onnx"), ("torchscript", "torchscript")],
)
def test_a_forked_process_is_told_to_open_its_own(
    tiny_artefacts: TinyArtefacts, runtime: str, artefact: str
) -> None:
    found = forked(runtime, tiny_artefacts.files[artefact])
    parent, told = found["parent"], found["told"]
    for call, owner in (("run", "the runner"), ("embed", "the embedder"), ("stream", "the runner")):
        text, seconds = told[call]
        assert re.search(
            rf"{owner} was opened by process {parent}, from which this process \(\d+\) was "
            "forked, and the runtime's threads are not here; open the model in each process after",
            text,
        ), text
        assert seconds < 1, call
    assert told["close"][0] == "nothing"
    assert told["close"][1] < 1
    text, seconds = told["reopened"]
    if runtime == "torchscript":
        assert f"torch computed in process {parent} before this one" in text
        assert "OMP_NUM_THREADS=1" in text
        assert seconds < 1
    else:
        assert text == "vectors"
