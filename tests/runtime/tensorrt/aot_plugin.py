"""The plugin as TensorRT's own Python template drives it, over the stub libraries."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import MagicMock, create_autospec

import numpy as np
import pytest


class Registry:
    """TensorRT's plugin registry, which the stub libraries do not have."""

    def __init__(self, trt: ModuleType) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}
        self.double = create_autospec(trt.IPluginRegistry, instance=True)
        self.double.register_creator.side_effect = self._register
        self.double.get_creator.side_effect = lambda *key: self.creators[key]

    def _register(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, creator.plugin_version, namespace] = creator
        return True


def creator_of(registry: Registry) -> Any:
    """What the ONNX parser finds for an AttentionPool node."""
    return registry.creators["AttentionPool", "1", "sa_deploy"]


def map_desc(trt: ModuleType, *, dims: tuple[int, ...], kind: str) -> Any:
    desc = trt.DynamicPluginTensorDesc()
    desc.desc.dims = trt.Dims(dims)
    desc.desc.type = getattr(trt.DataType, kind)
    desc.desc.format = trt.TensorFormat.LINEAR
    return desc


class Numbers:
    """An expression builder that computes with names and numbers instead of TensorRT's."""

    def __init__(self, trt: ModuleType) -> None:
        self.trt = trt

    def make(self, value: object) -> Any:
        expression = create_autospec(self.trt.IDimensionExpr, instance=True)
        expression.value = value
        return expression

    def builder(self) -> Any:
        double = create_autospec(self.trt.IExprBuilder, instance=True)
        double.constant.side_effect = self.make
        return double


def built_plugin(
    trt: ModuleType,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: str = "HALF",
    normalize: bytes = b"sum\0",
    dims: tuple[int, int, int] = (2048, 24, 8),
    parts: int = 6,
    batch: object = "N",
) -> tuple[Any, list[Any], Numbers]:
    """The plugin TensorRT's own template makes of the fields its ONNX parser passes."""
    # Measured with the parser of TensorRT-RTX 1.7.1: an INT32 and a string with its NUL.
    fields = trt.PluginFieldCollection(
        [
            trt.PluginField("parts", np.array([parts], np.int32), trt.PluginFieldType.INT32),
            trt.PluginField(
                "normalize", np.frombuffer(normalize, np.int8), trt.PluginFieldType.CHAR
            ),
        ]
    )
    made = creator_of(registry).create_plugin(
        "AttentionPool",
        "sa_deploy",
        fields,
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.PREFER_AOT,
    )
    numbers = Numbers(trt)
    monkeypatch.setattr(trt, "DimsExprs", lambda length: [None] * length)
    made.get_output_data_types([getattr(trt.DataType, kind)], [4])
    sizes = [numbers.make(v) for v in (batch, *dims)]
    shapes = made.get_output_shapes([sizes], [], numbers.builder())
    border = [
        map_desc(trt, dims=(-1, *dims), kind=kind),
        map_desc(trt, dims=(-1, dims[0], parts), kind=kind),
    ]
    assert [[size.value for size in shape] for shape in shapes] == [[batch, dims[0], parts]]
    return made, border, numbers


class Launch(NamedTuple):
    """What an engine embeds of a kernel, and how it launches it."""

    name: str
    ptx: bytes
    grid: tuple[Any, ...]
    block: tuple[int, ...]
    shared_bytes: int
    scalars: int


def launch_of(
    trt: ModuleType,
    made: tuple[Any, list[Any], Numbers],
    monkeypatch: pytest.MonkeyPatch,
    tactic: int,
) -> Launch:
    """What TensorRT's own template takes from the plugin for one tactic."""
    plugin, border, numbers = made
    plugin.get_supported_format_combinations(border, 1)
    plugin.set_tactic(tactic)
    # Only the last step, TensorRT's own C++ expression, needs a live builder.
    tensors = sys.modules["tensorrt.plugin._tensor"]
    monkeypatch.setattr(tensors, "SymExprImpl", lambda expression: expression)
    launch = create_autospec(trt.KernelLaunchParams, instance=True)
    scalars = MagicMock()
    plugin.get_launch_params([], border, 1, launch, scalars, numbers.builder())
    name, ptx = plugin.get_kernel([border[0].desc], [border[1].desc])
    sizes = [getattr(launch, f"{what}_{axis}") for what in ("grid", "block") for axis in "xyz"]
    assert {type(size).__name__ for size in sizes} == {"SymInt32"}
    values = [size._expr.value for size in sizes]
    return Launch(
        name=name if isinstance(name, str) else name.decode(),
        ptx=ptx,
        grid=tuple(values[:3]),
        block=tuple(values[3:]),
        shared_bytes=launch.shared_mem._expr.value,
        scalars=scalars.nbSymExprs,
    )
