"""Ranges of a model's activations on calibration crops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.system.extras import require
from sa_training.ranges import Histogram

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def histograms(
    model: ModelProto, tensors: Sequence[str], inputs: Iterable[NDArray[Any]]
) -> dict[str, Histogram]:
    """Run a model on ONNX Runtime and count the values of some of its activations.

    Args:
        model: FP32 or FP16.
        tensors: names of activations.
        inputs: batches as the model's input takes them.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        InputError: an activation that is not finite.
    """
    onnx = require("onnx", extra="export", purpose="calibration")
    ort = require("onnxruntime", extra="export", purpose="calibration")
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.input)}
    tapped = type(model)()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(types.get(name) or _untyped(name) for name in tensors)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(tapped.SerializeToString(), options)
    name = model.graph.input[0].name
    found = {tensor: Histogram() for tensor in tensors}
    for batch in inputs:
        for tensor, values in zip(tensors, session.run(list(tensors), {name: batch}), strict=True):
            found[tensor].add(np.asarray(values, np.float32))
    return found


def _untyped(name: str) -> ValueInfoProto:
    """A float tensor of any shape, where none could be inferred."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
