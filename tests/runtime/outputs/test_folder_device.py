"""A folder goes on with the device it was begun on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST
from sa_runtime.pipeline.embed import embed
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def test_a_change_of_device_is_refused_and_older_folders_go_on(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    image, out = tmp_path / "a.png", tmp_path / "out"
    cv2.imwrite(str(image), np.full((32, 16, 3), 90, np.uint8))
    with open_runner(tiny_model.path, "onnxruntime") as runner:
        embed([image], runner, out)
        assert embed([image], runner, out, resume=True).resumed_rows == 1
        runner.device = "cuda:1"
        with pytest.raises(InputError, match='because device was "cpu" and is "cuda"'):
            embed([image], runner, out, resume=True)
        # Folders of versions that did not note the device go on as they did.
        manifest = json.loads((out / MANIFEST).read_text())
        del manifest["plan"]["device"]
        (out / MANIFEST).write_text(json.dumps(manifest))
        assert embed([image], runner, out, resume=True).resumed_rows == 1
