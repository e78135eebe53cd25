"""OpenVINO IR from an ONNX model, the operator inlined, the contract in ``rt_info``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_runtime.artefact.external_data import IR_WEIGHTS, WEIGHTS_KEY, file_hash
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto


class OpenVinoWriter:
    """An ONNX model as OpenVINO IR: ``.xml``, its weights beside it as ``.bin``.

    Args:
        model: without model-local functions, which OpenVINO's reader does not know.
        half: store weights as FP16. The IR has no bf16 arithmetic of its own: runners ask for it as
            the contract says, and FP16 rounds weights less than bf16 does.

    Raises:
        MissingPackageError: OpenVINO is not installed.
    """

    def __init__(self, model: ModelProto, *, half: bool) -> None:
        openvino = require("openvino", extra="cpu", purpose="export to OpenVINO")
        bare = type(model).FromString(model.SerializeToString())
        del bare.metadata_props[:]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(bare.SerializeToString())
            # Unlike the reader of `Core`, it folds the shapes that biases are broadcast to.
            self._model = openvino.convert_model(path)
        self._half = half

    def __call__(self, metadata: Mapping[str, str], path: Path) -> None:
        """Write both files with these entries, and the hash of the weights, in ``rt_info``."""
        write_ir(self._model, metadata, path, half=self._half)


def write_ir(model: Any, metadata: Mapping[str, str], path: Path, *, half: bool) -> None:
    """Write an ``openvino.Model`` with these entries and the hash of its weights.

    Args:
        model: to write; the entries are added to it.
        metadata: entries of ``rt_info``.
        path: ``.xml``; the weights go beside it as ``.bin``.
        half: store weights as FP16.

    Raises:
        MissingPackageError: OpenVINO is not installed.
    """
    openvino = require("openvino", extra="cpu", purpose="export to OpenVINO")
    for key, value in metadata.items():
        model.set_rt_info(value, key.split("."))
    openvino.save_model(model, str(path), compress_to_fp16=half)
    weights = json.dumps({IR_WEIGHTS: file_hash(path.with_suffix(".bin"))})
    model.set_rt_info(weights, WEIGHTS_KEY.split("."))
    openvino.save_model(model, str(path), compress_to_fp16=half)
