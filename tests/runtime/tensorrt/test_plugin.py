"""The plugin against the real ``tensorrt.plugin`` of TensorRT 11: validators, classes, launches."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, create_autospec

import numpy as np
import pytest

from sa_runtime.errors import BuildError
from sa_runtime.tensorrt import plugin as plugin_module
from sa_runtime.tensorrt.plugin import (
    PLUGIN,
    AttentionPoolPlugin,
    plugin_sha256,
    register_attention_pool,
)
from sa_runtime.tensorrt.tactics import TACTICS, Pool, tactics_for


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


@pytest.fixture
def registry(stub_tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with the plugin registered for compute capability 9.0."""
    registry = Registry(stub_tensorrt)
    monkeypatch.setattr(stub_tensorrt, "get_plugin_registry", lambda: registry.double)
    register_attention_pool(stub_tensorrt, 90)
    return registry


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
) -> tuple[Any, list[Any], Numbers]:
    """The plugin TensorRT's own template makes of the fields its ONNX parser passes."""
    # Measured with the parser of TensorRT-RTX 1.7.1: an INT32 and a string with its NUL.
    fields = trt.PluginFieldCollection(
        [
            trt.PluginField("parts", np.array([6], np.int32), trt.PluginFieldType.INT32),
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
    sizes = [numbers.make(v) for v in ("N", 2048, 24, 8)]
    shapes = made.get_output_shapes([sizes], [], numbers.builder())
    border = [
        map_desc(trt, dims=(-1, 2048, 24, 8), kind=kind),
        map_desc(trt, dims=(-1, 2048, 6), kind=kind),
    ]
    assert [[size.value for size in shape] for shape in shapes] == [["N", 2048, 6]]
    return made, border, numbers


def test_it_declares_its_attributes_to_the_parser(
    stub_tensorrt: ModuleType, registry: Registry
) -> None:
    fields = {field.name: field.type for field in creator_of(registry).field_names}
    kinds = stub_tensorrt.PluginFieldType
    assert fields == {"parts": kinds.INT64, "normalize": kinds.CHAR}


def test_it_is_no_hand_written_plugin(registry: Registry) -> None:
    source = inspect.getsource(plugin_module)
    assert "IPluginV3" not in source
    assert creator_of(registry).__class__.__module__.startswith("tensorrt.plugin")


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "BF16"])
def test_the_output_has_the_type_of_the_map(
    stub_tensorrt: ModuleType,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    made, _, _ = built_plugin(stub_tensorrt, registry, monkeypatch, kind=kind)
    assert made.get_output_data_types([getattr(stub_tensorrt.DataType, kind)], [4]) == [
        getattr(stub_tensorrt.DataType, kind)
    ]


def test_every_tactic_that_suits_is_offered_for_every_type(
    stub_tensorrt: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, border, _ = built_plugin(stub_tensorrt, registry, monkeypatch)
    combinations = made.get_supported_format_combinations(border, 1)
    kinds = [(c.type.name, c.format.name) for c in combinations]
    assert kinds == [
        (kind, "LINEAR") for kind in ("FLOAT", "FLOAT", "HALF", "HALF", "BF16", "BF16")
    ]
    made.configure_plugin(border[:1], border[1:])
    pool = Pool(channels=2048, height=24, width=8, parts=6, normalize="sum", element="fp16")
    assert sorted(made.get_valid_tactics()) == tactics_for(pool)


@pytest.mark.parametrize("tactic", [2, 7])
@pytest.mark.parametrize("normalize", [b"sum\0", b"softmax"])
def test_a_launch_is_what_the_kernel_was_compiled_for(
    stub_tensorrt: ModuleType,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    tactic: int,
    normalize: bytes,
) -> None:
    made, border, numbers = built_plugin(stub_tensorrt, registry, monkeypatch, normalize=normalize)
    made.get_supported_format_combinations(border, 1)
    made.set_tactic(tactic)
    # Only the last step, TensorRT's own C++ expression, needs a live builder.
    tensors = sys.modules["tensorrt.plugin._tensor"]
    monkeypatch.setattr(tensors, "SymExprImpl", lambda expression: expression)
    launch = create_autospec(stub_tensorrt.KernelLaunchParams, instance=True)
    scalars = MagicMock()
    made.get_launch_params([], border, 1, launch, scalars, numbers.builder())
    name, text = made.get_kernel(
        [desc.desc for desc in border[:1]], [desc.desc for desc in border[1:]]
    )
    chosen = TACTICS[tactic - 1]
    values = {
        field: getattr(launch, field)._expr.value
        for field in ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
    }
    assert values == {
        "grid_x": "N",
        "grid_y": chosen.splits,
        "grid_z": 1,
        "block_x": 32 * chosen.warps,
        "block_y": 1,
        "block_z": 1,
    }
    assert 0 < launch.shared_mem._expr.value <= 48 * 1024
    assert type(launch.grid_x).__name__ == "SymInt32"
    assert scalars.nbSymExprs == 0
    assert f".entry {name}(".encode() in text
    assert b".target sm_90a" in text


def test_registering_again_only_changes_the_architecture(
    stub_tensorrt: ModuleType, registry: Registry
) -> None:
    register_attention_pool(stub_tensorrt, 80)
    assert registry.double.register_creator.call_count == 1
    assert plugin_module._registered["tensorrt"].compute_capability == 80


def test_the_real_validators_see_every_annotation(stub_tensorrt: ModuleType) -> None:
    # Under `from __future__ import annotations` they would be strings, which are refused.
    trtp = __import__("tensorrt.plugin", fromlist=["register"])

    def describe(x: Any, parts: int) -> Any:
        return x.like()

    with pytest.raises((ValueError, TypeError), match=r"'Any', parts: 'int'|must be a class"):
        trtp.register("sa_test::Strings", lazy_register=True)(describe)


@pytest.mark.parametrize(
    ("kind", "dims", "text"),
    [
        ("INT8", (-1, 64, 8, 4), "expected FP32, FP16 or BF16; build with --no-plugin"),
        ("HALF", (-1, 64, -1, 4), "height=-1, expected a fixed size"),
        ("HALF", (-1, 64, 4, 4), "parts=6: expected 1 to 4"),
    ],
)
def test_maps_the_kernel_is_not_made_for_are_refused(
    stub_tensorrt: ModuleType, kind: str, dims: tuple[int, ...], text: str
) -> None:
    trtp = __import__("tensorrt.plugin", fromlist=["register"])
    plugin = AttentionPoolPlugin(stub_tensorrt, trtp, 90)
    desc = trtp.TensorDesc(dtype=getattr(stub_tensorrt.DataType, kind))
    desc.shape = trtp.Shape(dims)
    with pytest.raises(BuildError, match=text):
        plugin.pool(desc, 6, "sum")


def test_a_tensorrt_without_embedded_kernels_is_refused(
    stub_tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(stub_tensorrt, "QuickPluginCreationRequest")
    with pytest.raises(BuildError, match=r"expected 10\.9 or newer; update it, or build with"):
        register_attention_pool(stub_tensorrt, 90)


def test_the_kernels_hash_follows_its_sources() -> None:
    assert len(plugin_sha256()) == 64
    assert plugin_module._SOURCES == ("kernel.py", "plugin.py", "ptx.py", "tactics.py")
    assert PLUGIN == "sa_deploy::AttentionPool"
