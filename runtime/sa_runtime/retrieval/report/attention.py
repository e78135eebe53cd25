"""Where a model looks: maps over the crops of a report, taken from inside an ONNX file.

Of a network with spatial attention the weights with which its last map is pooled; of any other
convolutional network the strength of the map that its last pooling takes. Shape suffixes: N images,
C channels, H x W map.
"""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa_runtime.artefact.contract import METADATA_KEY, OutputSpec
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, attention_map
from sa_runtime.embedder import Embedder
from sa_runtime.errors import SaDeployError
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Kind = Literal["attention", "strength", "none"]
_BATCH = 16
_LEAST_CHANNELS = 8
"""Fewer are pixels, which a model without convolutions pools."""
_OUTPUT = "sa_deploy_map"
_POOLINGS = ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """Maps of one model.

    Attributes:
        kind: ``attention``: what the last map is weighted with; ``strength``: the mean square of
            the last map; ``none``: nothing is drawn.
        reason: why nothing is drawn; else empty.
        maps: (N, H, W) uint8 of the first images: the share of each map's largest value, 255.
    """

    kind: Kind
    reason: str
    maps: NDArray[np.uint8]

    @classmethod
    def absent(cls, reason: str) -> Attention:
        """No maps, and why."""
        return cls(kind="none", reason=reason, maps=np.zeros((0, 1, 1), np.uint8))

    def to_dict(self) -> dict[str, Any]:
        """For the page."""
        count, height, width = self.maps.shape
        return {
            "kind": self.kind,
            "reason": self.reason,
            "count": count,
            "height": height,
            "width": width,
            "maps": base64.b64encode(self.maps.tobytes()).decode(),
        }


class _Inner(NamedTuple):
    """A tensor inside a graph."""

    name: str
    kind: Kind
    normalize: Normalize
    shape_CHW: tuple[int, int, int]


def attention_of(
    model: Path | str, images: Sequence[Path], on_progress: Callable[[int], None] | None = None
) -> Attention:
    """Run images through a model and read where it looks.

    Never raises for what the model is or lacks: a report is worth having without maps, and says why
    there are none.

    Args:
        model: an artefact; maps are taken from ONNX files, by ONNX Runtime on the processor.
        images: N image files.
        on_progress: called with the number of images just run.
    """
    if Path(model).suffix != ".onnx":
        return Attention.absent("maps are read from ONNX files only, and this is none")
    try:
        with tempfile.TemporaryDirectory() as folder:
            inner = _write_cut(Path(model), cut := Path(folder) / "map.onnx")
            if inner is None:
                return Attention.absent("this graph pools no map whose size is known")
            maps = []
            with Embedder(cut, "onnxruntime", batch_size=_BATCH) as embedder:
                for start in range(0, len(images), _BATCH):
                    some = images[start : start + _BATCH]
                    maps.append(_drawn(embedder.embed_paths(some), inner))
                    if on_progress is not None:
                        on_progress(len(some))
    except SaDeployError as exc:
        return Attention.absent(str(exc))
    return Attention(kind=inner.kind, reason="", maps=np.concatenate(maps))


def _drawn(flat: NDArray[np.float32], inner: _Inner) -> NDArray[np.uint8]:
    """(N, C * H * W) values of the last map -> (N, H, W) shares of 255."""
    last_NCHW = flat.reshape(len(flat), *inner.shape_CHW)
    if inner.kind == "attention":
        map_NHW = attention_map(last_NCHW, inner.normalize)[:, 0]
    else:
        map_NHW = np.square(last_NCHW).mean(axis=1)
    largest_N11 = map_NHW.max(axis=(1, 2), keepdims=True)
    share_NHW = map_NHW / np.where(largest_N11 > 0, largest_N11, 1)
    return np.round(255 * np.clip(share_NHW, 0, 1)).astype(np.uint8)


def _write_cut(model: Path, target: Path) -> _Inner | None:
    """Write the model so that it returns its last map, flat; ``None`` where there is none."""
    onnx = require("onnx", extra="cpu", purpose="maps of attention")
    contract = read_contract(model)
    graph: ModelProto = onnx.load(str(model))
    inner = _last_map(graph)
    if inner is None:
        return None
    helper = onnx.helper
    wide = f"{_OUTPUT}_wide"
    graph.graph.node.extend(
        [
            helper.make_node("Cast", [inner.name], [wide], to=onnx.TensorProto.FLOAT),
            helper.make_node("Flatten", [wide], [_OUTPUT], axis=1),
        ]
    )
    size = math.prod(inner.shape_CHW)
    shown = helper.make_tensor_value_info(_OUTPUT, onnx.TensorProto.FLOAT, ["N", size])
    del graph.graph.output[:]
    graph.graph.output.append(shown)
    mine = replace(contract, output=OutputSpec(name=_OUTPUT, dim=size), extra_outputs=())
    del graph.metadata_props[:]
    helper.set_model_props(graph, {METADATA_KEY: mine.to_json()})
    onnx.save(graph, str(target))
    return inner


def _last_map(model: ModelProto) -> _Inner | None:
    """What the graph's last pooling of a map takes."""
    from onnx import helper, shape_inference

    shapes = {}
    inferred = shape_inference.infer_shapes(model).graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value for dim in dims)
    axes = _constants(model)
    found: _Inner | None = None
    for node in model.graph.node:
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if len(shape) != 4 or not all(shape[1:]) or shape[2] * shape[3] == 1:
            continue
        name, (channels, height, width) = node.input[0], shape[1:]
        if node.op_type == "AttentionPool":
            given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            normalize = given.get("normalize", b"sum").decode()
            assert normalize in NORMALIZATIONS
            kind: Kind = "strength" if normalize == "none" else "attention"
            found = _Inner(name, kind, normalize, (channels, height, width))
        elif channels >= _LEAST_CHANNELS and _pools(node, axes):
            found = _Inner(name, "strength", "none", (channels, height, width))
    return found


def _pools(node: NodeProto, constants: dict[str, list[int]]) -> bool:
    """Whether a node takes means or maxima over the pixels of a map, and over nothing else."""
    if node.op_type in _POOLINGS:
        return True
    if node.op_type not in _REDUCTIONS:
        return False
    axes = [list(item.ints) for item in node.attribute if item.name == "axes"]
    axes += [constants.get(name, []) for name in node.input[1:2]]
    return bool(axes) and sorted(axis % 4 for axis in axes[0]) == [2, 3]


def _constants(model: ModelProto) -> dict[str, list[int]]:
    """Small whole numbers that the graph holds, by name."""
    from onnx import TensorProto, numpy_helper

    held = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        for item in node.attribute:
            if node.op_type == "Constant" and item.name == "value":
                held[node.output[0]] = item.t
    return {
        name: numpy_helper.to_array(tensor).ravel().tolist()
        for name, tensor in held.items()
        if tensor.data_type == TensorProto.INT64 and math.prod(tensor.dims) <= 4
    }
