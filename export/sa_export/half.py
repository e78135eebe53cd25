"""A graph in FP16, by the converter that comes with ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa_export.wrapping import PREFIX
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto


def half_model(model: ModelProto) -> ModelProto:
    """A copy that computes in FP16, but for what an adopted model has before and behind.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    library = require("onnxruntime.transformers.float16", extra="cpu", purpose="precision fp16")
    kept = [node.name for node in model.graph.node if node.name.startswith(PREFIX)]
    converted: ModelProto = library.convert_float_to_float16(
        model,
        keep_io_types=True,
        node_block_list=kept,
        disable_shape_infer=False,
        force_fp16_initializers=True,
    )
    return converted
