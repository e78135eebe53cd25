"""Channels brought to like ranges, so that one scale for a tensor serves all of them.

Where convolutions read what convolutions wrote, a channel may be divided by a number in the writers
and multiplied by it in the readers: the network computes the same (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1). Here
the ranges are those seen on calibration crops, residual additions are followed, and a ReLU6 is kept
as it is: its channels are only made larger, and only as far as what was seen stays below its limit.

Shape suffixes: O outputs, I inputs of a group, C channels, G groups.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa_export.quantize.calibrate import Channels
from sa_export.quantize.scheme import Scheme, quantised_weights

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_PASSING = ("Relu", "MaxPool")
"""What a channel may be multiplied before as well as after."""
_SHARES = (0.5, 0.75, 1.0)
"""How much of the scale follows the activations' ranges; the rest follows the weights'."""
_MARGIN = 1.1
"""What is left free below the limit of a ReLU6."""
_LEAST = 1e-2
"""Channels of less than this part of the greatest range count as having that much."""
_GAIN = 0.9
"""A stream is left alone where its noise would not fall below this part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Tensors whose channels can be scaled together.

    Attributes:
        read: those of them that convolutions read.
        writers: outputs of the convolutions that write them.
        readers: outputs of the convolutions that read them.
        limit: the least upper end of a ``Clip`` in it, infinity where there is none.
    """

    read: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    limit: float


def equalised(
    model: ModelProto, channels: Mapping[str, Channels], scheme: Scheme
) -> tuple[ModelProto, dict[str, Channels]]:
    """A copy of a model whose channels have like ranges, and what was seen of them, scaled alike.

    Args:
        model: floating, batch norms folded.
        channels: of every tensor that a convolution reads.
        scheme: how it will be quantised, by which the noise of a choice is told.
    """
    copied = type(model)()
    copied.CopyFrom(model)
    seen = dict(channels)
    weights = _Weights(copied.graph)
    for stream in streams(copied):
        if not all(name in channels for name in stream.read):
            continue
        scale_C = _best_scale(stream, weights, seen, scheme)
        if scale_C is None:
            continue
        for output in stream.writers:
            weights.divide_outputs(output, scale_C)
        for output in stream.readers:
            weights.multiply_inputs(output, scale_C)
        seen |= {name: seen[name].divided(scale_C) for name in stream.read}
    weights.store()
    return copied, seen


def streams(model: ModelProto) -> list[Stream]:
    """The streams of a graph that begin and end with convolutions alone."""
    graph = model.graph
    constants = _constants(graph)
    used = Counter(name for node in _all_nodes(graph) for name in node.input)
    convolutions = {
        node.output[0]: node for node in graph.node if _own_weights(node, constants, used)
    }
    union = _Union()
    barred = {value.name for value in (*graph.input, *graph.output)}
    limits: dict[str, float] = {}
    for node in _all_nodes(graph):
        tensors = [*node.input, *node.output]
        if node.output and node.output[0] in convolutions:
            continue
        added = node.op_type == "Add" and not constants.keys() & set(node.input)
        if added or (node.op_type in _PASSING and len(node.output) == 1):
            union.join(tensors)
        elif node.op_type == "Clip" and (high := _clip_limit(node, constants)) is not None:
            union.join([node.input[0], node.output[0]])
            limits[node.output[0]] = high
        else:
            barred.update(tensors)
    groups = union.groups({name for o, n in convolutions.items() for name in (o, n.input[0])})
    found = []
    for group in groups:
        members = set(group)
        writers = tuple(output for output in convolutions if output in members)
        readers = tuple(o for o, node in convolutions.items() if node.input[0] in members)
        if writers and readers and not members & barred:
            read = dict.fromkeys(convolutions[output].input[0] for output in readers)
            limit = min((limits[name] for name in members & limits.keys()), default=np.inf)
            found.append(
                Stream(read=tuple(read), writers=writers, readers=readers, limit=float(limit))
            )
    return found


class _Union:
    """Sets of tensors that are joined."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, names: Sequence[str]) -> None:
        first = self._root(names[0])
        for name in names[1:]:
            self._parent[self._root(name)] = first

    def groups(self, names: Iterable[str]) -> list[list[str]]:
        """The sets that hold some names, in the order of these."""
        by_root: dict[str, list[str]] = {}
        for name in sorted({*names, *self._parent}):
            by_root.setdefault(self._root(name), []).append(name)
        return list(by_root.values())

    def _root(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            name = parent
        return name


class _Weights:
    """Weights and biases of a graph's convolutions, by the convolution's output."""

    def __init__(self, graph: GraphProto) -> None:
        self._constants = _constants(graph)
        self._items = {item.name: item for item in graph.initializer}
        self._nodes = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
        self._changed: set[str] = set()

    def grouped(self, output: str) -> NDArray[np.float32]:
        """(G, O / G, I, ...) float32."""
        node = self._nodes[output]
        weights = self._constants[node.input[1]].astype(np.float32)
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        return weights.reshape(groups, len(weights) // groups, *weights.shape[1:])

    def multiply_inputs(self, output: str, scale_C: NDArray[np.float32]) -> None:
        grouped = scaled_inputs(self.grouped(output), scale_C)
        self._replace(self._nodes[output].input[1], grouped)

    def divide_outputs(self, output: str, scale_C: NDArray[np.float32]) -> None:
        for name in self._nodes[output].input[1:3]:
            if name:
                values = self._constants[name].astype(np.float32)
                ones = [1] * (values.ndim - 1)
                self._replace(name, values / scale_C.reshape(-1, *ones))

    def store(self) -> None:
        """Put what was changed into the graph."""
        from onnx import numpy_helper

        for name in self._changed:
            self._items[name].CopyFrom(numpy_helper.from_array(self._constants[name], name))

    def _replace(self, name: str, values: NDArray[np.float32]) -> None:
        before = self._constants[name]
        self._constants[name] = values.reshape(before.shape).astype(before.dtype)
        self._changed.add(name)


def scaled_inputs(
    weights_GOI: NDArray[np.float32], scale_C: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weights of a convolution whose input channels are divided by a scale.

    Args:
        weights_GOI: (G, O, I, ...).
        scale_C: of the G * I channels.
    """
    groups, _, inputs, *kernel = weights_GOI.shape
    return weights_GOI * scale_C.reshape(groups, 1, inputs, *[1] * len(kernel))


def _best_scale(
    stream: Stream, weights: _Weights, seen: Mapping[str, Channels], scheme: Scheme
) -> NDArray[np.float32] | None:
    """The scale of least noise, ``None`` where none is worth it."""
    peak_C = np.max([seen[name].peak_C for name in stream.read], axis=0)
    top = float(peak_C.max())
    if top == 0:
        return None
    peak_C = np.maximum(peak_C, _LEAST * top)
    square_C = np.mean([seen[name].square_C for name in stream.read], axis=0)
    grouped = [weights.grouped(output) for output in stream.readers]
    weight_C = np.max([_input_peak(found) for found in grouped], axis=0)
    weight_C = np.maximum(weight_C, _LEAST * float(weight_C.max()))

    def noise(scale_C: NDArray[np.float32]) -> NDArray[np.float64]:
        step = float((peak_C / scale_C).max()) / scheme.levels
        return np.array(
            [
                _noise(scaled_inputs(w, scale_C), step, square_C / scale_C**2, scheme)
                for w in grouped
            ]
        )

    plain = np.maximum(noise(np.ones_like(peak_C)), 1e-30)
    best, least = None, _GAIN
    for share in _SHARES:
        scale_C = peak_C**share * weight_C ** (share - 1)
        if np.isfinite(stream.limit):
            scale_C = scale_C / scale_C.max()
            scale_C = np.minimum(np.maximum(scale_C, _MARGIN * peak_C / stream.limit), 1)
        scale_C = scale_C.astype(np.float32)
        ratio = float((noise(scale_C) / plain).mean())
        if ratio < least:
            best, least = scale_C, ratio
    return best


def _noise(
    weights_GOI: NDArray[np.float32], step: float, square_C: NDArray[np.float32], scheme: Scheme
) -> float:
    """Mean square that rounding inputs and weights adds to a convolution's outputs.

    Args:
        weights_GOI: as they will be rounded.
        step: between two values of the inputs.
        square_C: mean squares of the input channels.
        scheme: how weights are rounded.
    """
    groups, outputs, inputs, *kernel = weights_GOI.shape
    flat = weights_GOI.reshape(groups * outputs, inputs, *kernel)
    depthwise = groups > 1 == outputs
    values, scale_O = quantised_weights(flat, pairs=scheme.pairs and not depthwise)
    error = flat - values * scale_O.reshape(-1, 1, *[1] * len(kernel))
    error_GOI = (error**2).reshape(groups, outputs, inputs, -1).sum(axis=(1, 3))
    of_weights = (error_GOI * square_C.reshape(groups, inputs)).sum()
    return float((weights_GOI**2).sum() * step**2 / 12 + of_weights)


def _input_peak(weights_GOI: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) largest weight that reads each channel."""
    groups, outputs, inputs, *_ = weights_GOI.shape
    flat = np.abs(weights_GOI).reshape(groups, outputs, inputs, -1)
    return np.asarray(flat.max(axis=(1, 3)).reshape(-1), np.float32)


def _constants(graph: GraphProto) -> dict[str, NDArray[np.floating]]:
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        for item in node.attribute:
            if node.op_type == "Constant" and item.name == "value":
                found[node.output[0]] = numpy_helper.to_array(item.t)
    return found


def _own_weights(
    node: NodeProto, constants: Mapping[str, NDArray[np.floating]], used: Counter[str]
) -> bool:
    """Whether a node is a convolution whose parameters no other one reads."""
    return node.op_type == "Conv" and all(
        name in constants and used[name] == 1 for name in node.input[1:] if name
    )


def _clip_limit(node: NodeProto, constants: Mapping[str, NDArray[np.floating]]) -> float | None:
    """The upper end of a ``Clip`` from 0, ``None`` where it is another one."""
    ends = [constants.get(name) for name in (*node.input[1:], "", "")[:2]]
    if ends[0] is None or ends[1] is None or float(ends[0]) != 0:
        return None
    return float(ends[1])


def _all_nodes(graph: GraphProto) -> Iterable[NodeProto]:
    """Nodes of a graph and of those inside it."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                yield from _all_nodes(inner)
