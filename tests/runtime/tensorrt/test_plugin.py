"""The plugin against the real ``tensorrt.plugin`` of TensorRT 11: validators, classes, launches."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

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
from tests.runtime.tensorrt.aot_plugin import Registry, built_plugin, creator_of, launch_of


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
    made = built_plugin(stub_tensorrt, registry, monkeypatch, normalize=normalize)
    launch = launch_of(stub_tensorrt, made, monkeypatch, tactic)
    chosen = TACTICS[tactic - 1]
    assert launch.grid == ("N", chosen.splits, 1)
    assert launch.block == (32 * chosen.warps, 1, 1)
    assert 0 < launch.shared_bytes <= 48 * 1024
    assert launch.scalars == 0
    assert f".entry {launch.name}(".encode() in launch.ptx
    assert b".target sm_90a" in launch.ptx


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
        ("INT8", (-1, 64, 8, 4), "expected FP32, FP16 or BF16; build with `plugin=False`"),
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
