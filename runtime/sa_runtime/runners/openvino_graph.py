"""Models as OpenVINO reads them right.

Two faults of its readers and plugins are worked around here, both found by measuring
(docs/guide/runtimes.md): local functions of ONNX, which its reader does not know, and reductions
over three dimensions, which its processor plugin fuses wrongly.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from sa_runtime.artefact.external_data import external_bytes, external_files, external_tensors
from sa_runtime.errors import RunnerError
from sa_runtime.system.extras import require

_MOST_BYTES = 2**31 - 2**20
"""What a protocol buffer holds, less a little for the graph."""
_REDUCTIONS = {
    "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2",
    "ReduceMax": "reduce_max",
    "ReduceMean": "reduce_mean",
    "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod",
    "ReduceSum": "reduce_sum",
}


def read_openvino_model(ov: ModuleType, core: Any, path: Path) -> Any:
    """Read an ``.onnx`` or ``.xml`` file and make it safe for any batch.

    Args:
        ov: the package.
        core: its ``Core``.
        path: the file.

    Returns:
        An ``openvino.Model``.

    Raises:
        MissingPackageError: an ONNX file, and onnx is not installed.
        RunnerError: the file cannot be read.
    """
    try:
        model = core.read_model(_readable(path) if path.suffix == ".onnx" else str(path))
    except (RuntimeError, ValueError) as exc:
        raise RunnerError(f"{path}: OpenVINO cannot read it: {exc}") from exc
    lift_reductions(ov, model)
    return model


def _readable(path: Path) -> bytes | str:
    """An ONNX file as OpenVINO's reader knows it: functions inlined, external weights put in.

    Bytes have no folder, and OpenVINO would look for external weights in the working directory; by
    path it refuses links that download caches make.
    """
    onnx = require("onnx", extra="cpu", purpose="runtime openvino of an ONNX file")
    require("onnx.inliner", extra="cpu", purpose="runtime openvino of an ONNX file")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as exc:  # protobuf's DecodeError, whose module depends on its version
        raise RunnerError(f"{path}: not an ONNX model: {exc}") from exc
    external = external_tensors(path)
    if not model.functions and not external:
        return str(path)
    initializers = {item.name: item for item in model.graph.initializer}
    size = sum(file.stat().st_size for file in external_files(path))
    if size > _MOST_BYTES or any(tensor.name not in initializers for tensor in external):
        if not model.functions:
            return str(path)
        raise RunnerError(
            f"{path}: OpenVINO cannot read model-local functions beside {size} bytes of external "
            "weights, or such weights in a subgraph; export the model as OpenVINO IR: "
            "`sa-deploy export WEIGHTS --openvino`"
        )
    for tensor in external:
        item = initializers[tensor.name]
        item.raw_data = external_bytes(path, tensor)
        item.ClearField("external_data")
        item.ClearField("data_location")
    whole: bytes = onnx.inliner.inline_local_functions(model).SerializeToString()
    return whole


def lift_reductions(ov: ModuleType, model: Any) -> int:
    """Turn every reduction over three dimensions into one over four, in place.

    OpenVINO 2026.4's processor plugin fuses a reduction of an (N, C, L) tensor over L with the
    operations per channel behind it, and is then right for the first image of a batch only. Over
    (N, C, 1, L) it is right.

    Args:
        ov: the package.
        model: an ``openvino.Model``.

    Returns:
        How many were changed.
    """
    ops = require("openvino.opset13", extra="cpu", purpose="runtime openvino")
    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() not in _REDUCTIONS or not _over_last_of_three(node):
            continue
        middle = ops.constant([2], dtype="int64")
        lifted = getattr(ops, _REDUCTIONS[node.get_type_name()])(
            ops.unsqueeze(node.input_value(0), middle),
            ops.constant([3], dtype="int64"),
            node.get_keep_dims(),
        )
        result = ops.squeeze(lifted, middle)
        result.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(result.output(0))
        changed += 1
    if changed:
        model.validate_nodes_and_infer_types()
    return changed


def _over_last_of_three(node: Any) -> bool:
    rank = node.input_value(0).get_partial_shape().rank
    axes = node.input_value(1).get_node()
    if rank.is_dynamic or rank.get_length() != 3 or axes.get_type_name() != "Constant":
        return False
    return {int(axis) % 3 for axis in axes.get_data().reshape(-1)} == {2}
