"""A foreign graph made ready to be quantised, by ONNX Runtime's own basic optimisations."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto


def prepared(model: ModelProto) -> ModelProto:
    """A copy with batch norms folded into convolutions and constants computed.

    Operators stay ONNX's own.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    onnx = require("onnx", extra="cpu", purpose="precision int8")
    ort = require("onnxruntime", extra="cpu", purpose="precision int8")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised: ModelProto = onnx.load(str(path))
    # Domains of ONNX Runtime that no node is of.
    used = {node.domain for node in optimised.graph.node}
    standard = [item for item in optimised.opset_import if item.domain in used | {"", "ai.onnx"}]
    kept = [type(item).FromString(item.SerializeToString()) for item in standard]
    del optimised.opset_import[:]
    optimised.opset_import.extend(kept)
    return optimised
