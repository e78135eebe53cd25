"""Detectors in ONNX that always find the same, in the form of each exporter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 64


def write_detector(
    path: Path,
    outputs: Mapping[str, NDArray[Any]],
    *,
    names: Mapping[int, str] | None = None,
    noted: Mapping[str, str] | None = None,
    sized: bool = False,
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
) -> Path:
    """A file whose outputs are constants.

    Args:
        path: the file.
        outputs: name -> what it gives for any image.
        names: of the classes, as Ultralytics notes them.
        noted: what else it notes.
        sized: whether a second input takes the size of the frame.
        sides: height and width of the input; names for those that are left open.
    """
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *sides])]
    if sized:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [1, 2]))
    nodes, constants, infos = [], [], []
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array, f"{name}_constant"))
        nodes.append(helper.make_node("Identity", [f"{name}_constant"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        infos.append(helper.make_tensor_value_info(name, kind, array.shape))
    graph = helper.make_graph(nodes, "detector", inputs, infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    props = dict(noted or {}) | ({} if names is None else {"names": str(dict(names))})
    helper.set_model_props(model, props)
    onnx.save(model, str(path))
    return path


def end_to_end(path: Path) -> Path:
    """People at 8..24 x 16..48 of an input of 64x64, the second less sure, and a car."""
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [8, 16, 24, 48, 0.9, 0]
    rows[0, 1] = [32, 16, 48, 48, 0.5, 0]
    rows[0, 2] = [0, 0, 9, 9, 0.8, 2]
    return write_detector(path, {"output0": rows}, names={0: "person", 2: "car"})
