"""Engines from the real TensorRT-RTX builder and parser, which need no GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sa_runtime.tensorrt import flavour
from sa_runtime.tensorrt.build import engine_from_onnx
from sa_runtime.tensorrt.engines import build_engine
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions, profile_for
from sa_runtime.tensorrt.sidecar import read_sidecar
from tests.runtime.tensorrt.rtx_context import context, options
from tests.runtime.tensorrt.small_models import RELU, write_model

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize(
    ("precision", "compute", "pools"),
    [("fp32", {"FLOAT": 12}, 1), ("fp16", {"HALF": 12}, 2), ("int8", {"HALF": 12}, 2)],
)
def test_each_precision_becomes_an_engine_of_that_precision(
    exported_models: dict[str, Path],
    tmp_path: Path,
    precision: str,
    compute: dict[str, int],
    pools: int,
) -> None:
    graph = read_graph(exported_models[precision])
    assert (graph.precision, graph.attention_pools) == (precision, pools)
    out = tmp_path / "model.engine"
    info = build_engine(graph, out, options(), context(), precision=graph.precision)
    assert info.compute_types == compute
    assert ("QUANTIZE" in info.layers) == (precision == "int8")
    assert out.stat().st_size > 100_000
    assert read_sidecar(out) == info
    # One function body serves all nodes, P = 6 and P = 1: each becomes layers of its own.
    assert info.plugin_nodes == 0
    assert info.layers["GATHER"] == pools
    assert info.contract.max_batch == 8
    assert not info.contract.fixed_batch


def test_half_the_bytes_from_half_the_precision(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        out = tmp_path / f"{precision}.engine"
        build_engine(read_graph(exported_models[precision]), out, options(), context())
        sizes[precision] = out.stat().st_size
    assert sizes["fp16"] < 0.75 * sizes["fp32"]


def test_a_fixed_batch_needs_no_profile(tmp_path: Path) -> None:
    path = write_model(tmp_path / "fixed.onnx", RELU, batch=4)
    graph = read_graph(path)
    profile = profile_for(graph.contract)
    assert (profile.min, profile.opt, profile.max) == (4, 4, 4)
    info = build_engine(graph, tmp_path / "f.engine", BuildOptions(profile=profile), context())
    assert info.contract.fixed_batch


def test_progress_counts_up_in_every_phase(exported_models: dict[str, Path]) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def report(phase: str, done: int, total: int) -> None:
        seen.setdefault(phase, []).append((done, total))

    engine_from_onnx(
        read_graph(exported_models["fp32"]),
        load_flavour("tensorrt-rtx"),
        options(),
        gpu=None,
        report=report,
    )
    steps = seen["Building engine"]
    assert [done for done, _ in steps[:3]] == [0, 1, 2]
    assert steps[-1][0] == steps[-1][1]
    assert len(seen) > 3


def test_an_interrupt_stops_the_builder(exported_models: dict[str, Path], tmp_path: Path) -> None:
    def interrupt(phase: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    out = tmp_path / "model.engine"
    with pytest.raises(KeyboardInterrupt):
        build_engine(read_graph(exported_models["fp32"]), out, options(), context(report=interrupt))
    assert list(tmp_path.iterdir()) == []


def test_the_plugin_is_never_registered_for_rtx(
    exported_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Its parser takes the node of a registered plugin and then aborts the process.
    def refuse(*_: object) -> None:
        raise AssertionError("registered")

    monkeypatch.setattr("sa_runtime.tensorrt.build.register_attention_pool", refuse)
    graph = read_graph(exported_models["fp32"])
    assert build_engine(graph, tmp_path / "m.engine", options(), context()).plugin_nodes == 0


def test_the_flavour_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"tensorrt", "tensorrt_rtx"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: object() if name in there else None
    )
    assert flavour.choose_flavour(has_gpu=True) == "tensorrt"
    assert flavour.choose_flavour(has_gpu=False) == "tensorrt-rtx"
    there.discard("tensorrt")
    assert flavour.choose_flavour(has_gpu=True) == "tensorrt-rtx"
    there.clear()
    assert flavour.choose_flavour(has_gpu=True) == "tensorrt"


@pytest.mark.slow
def test_a_resnet50_builds_in_seconds(tmp_path: Path) -> None:
    import torch

    from sa_export.contracts import contract_of
    from sa_export.deploy import DeployNetwork, GraphSpec
    from sa_export.onnx_file import onnx_from_network
    from sa_export.options import ExportOptions
    from sa_training.checkpoints import Checkpoint
    from sa_training.network import SANetwork
    from sa_training.recipes import tiny

    recipe = tiny()
    config = dataclasses.replace(
        recipe.network, backbone="resnet50", height=384, width=128, classes=4
    )
    torch.manual_seed(0)
    network = SANetwork(config).eval()
    deployed = DeployNetwork(network, GraphSpec(compute="fp16"))
    checkpoint = Checkpoint(
        path=tmp_path / "none.pt", network=network, recipe=recipe, epoch=0, training={}
    )
    asked = ExportOptions(precision="fp16")
    contract = contract_of(checkpoint, deployed, asked)
    path = tmp_path / "resnet50.onnx"
    path.write_bytes(onnx_from_network(deployed, contract).SerializeToString())
    info = build_engine(read_graph(path), tmp_path / "r.engine", options(), context())
    assert info.build_seconds < 60
    assert info.compute_types == {"HALF": 53}
    assert info.layers["CONVOLUTION"] == 53
