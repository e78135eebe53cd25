"""Ranges of a model's activations on calibration crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
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
    run = _tapped(model, tensors)
    found = {tensor: Histogram() for tensor in tensors}
    for batch in inputs:
        for tensor, values in zip(tensors, run(batch), strict=True):
            found[tensor].add(values)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """What was seen of a map's channels.

    Attributes:
        peak_C: the largest magnitude of each.
        mean_C: the mean.
        square_C: the mean square.
    """

    peak_C: NDArray[np.float32]
    mean_C: NDArray[np.float32]
    square_C: NDArray[np.float32]

    def divided(self, scale_C: NDArray[np.float32]) -> Channels:
        """The same of the map divided by a scale."""
        return Channels(
            peak_C=self.peak_C / scale_C,
            mean_C=self.mean_C / scale_C,
            square_C=self.square_C / scale_C**2,
        )


def channels(
    model: ModelProto, tensors: Sequence[str], inputs: Iterable[NDArray[Any]]
) -> dict[str, Channels]:
    """Run a model on ONNX Runtime and look at the channels of some of its maps.

    Args:
        model: FP32 or FP16.
        tensors: names of maps (N, C, ...).
        inputs: batches as the model's input takes them.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    run = _tapped(model, tensors)
    peaks: list[list[NDArray[np.float32]]] = [[] for _ in tensors]
    sums: list[list[NDArray[np.float64]]] = [[] for _ in tensors]
    for batch in inputs:
        for of_peaks, of_sums, values in zip(peaks, sums, run(batch), strict=True):
            rows_NCP = values.reshape(*values.shape[:2], -1)
            of_peaks.append(np.abs(rows_NCP).max(axis=(0, 2)))
            total = rows_NCP.sum(axis=(0, 2), dtype=np.float64)
            square = np.square(rows_NCP).sum(axis=(0, 2), dtype=np.float64)
            count = np.full_like(total, rows_NCP.size / rows_NCP.shape[1])
            of_sums.append(np.stack([total, square, count]))
    found = {}
    for tensor, of_peaks, of_sums in zip(tensors, peaks, sums, strict=True):
        total, square, count = np.sum(of_sums, axis=0)
        found[tensor] = Channels(
            peak_C=np.max(of_peaks, axis=0),
            mean_C=(total / count).astype(np.float32),
            square_C=(square / count).astype(np.float32),
        )
    return found


def _tapped(
    model: ModelProto, tensors: Sequence[str]
) -> Callable[[NDArray[Any]], list[NDArray[np.float32]]]:
    """A model as a function from a batch to some of its activations."""
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

    def run(batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        return [np.asarray(v, np.float32) for v in session.run(list(tensors), {name: batch})]

    return run


def _untyped(name: str) -> ValueInfoProto:
    """A float tensor of any shape, where none could be inferred."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
