"""Engines from the real TensorRT-RTX builder and parser, which need no GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sa_runtime.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from sa_runtime.errors import BuildError, ContractError, InputError
from sa_runtime.tensorrt import engines, flavour
from sa_runtime.tensorrt.build import engine_from_onnx
from sa_runtime.tensorrt.engines import Workshop, build_engine, cached_engine
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.locking import locked
from sa_runtime.tensorrt.options import BuildOptions, Profile, profile_for
from sa_runtime.tensorrt.probe import Gpu, Machine
from sa_runtime.tensorrt.sidecar import read_sidecar, sidecar_path

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

NO_GPU = Machine(cuda_version=None, gpus=(), problem="none")


def workshop(**changes: object) -> Workshop:
    base = Workshop(flavour=load_flavour("tensorrt-rtx"), machine=NO_GPU)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def options(*, sizes: tuple[int, int, int] = (1, 4, 8), **changes: object) -> BuildOptions:
    low, best, high = sizes
    profile = Profile(min=low, opt=best, max=high)
    return BuildOptions(profile=profile, **changes)  # type: ignore[arg-type]


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
    info = build_engine(graph, out, options(), workshop(), precision=graph.precision)
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
        build_engine(read_graph(exported_models[precision]), out, options(), workshop())
        sizes[precision] = out.stat().st_size
    assert sizes["fp16"] < 0.75 * sizes["fp32"]


def test_a_fixed_batch_needs_no_profile(tmp_path: Path) -> None:
    path = write_model(tmp_path / "fixed.onnx", RELU, batch=4)
    graph = read_graph(path)
    profile = profile_for(graph.contract)
    assert (profile.min, profile.opt, profile.max) == (4, 4, 4)
    info = build_engine(graph, tmp_path / "f.engine", BuildOptions(profile=profile), workshop())
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
        build_engine(
            read_graph(exported_models["fp32"]), out, options(), workshop(report=interrupt)
        )
    assert list(tmp_path.iterdir()) == []


def test_what_the_graph_is_not_is_refused_with_the_command_that_gives_it(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    text = r"--precision fp16 was asked for, the graph is fp32 .* --onnx --precision fp16"
    with pytest.raises(InputError, match=text):
        build_engine(
            read_graph(exported_models["fp32"]),
            tmp_path / "m.engine",
            options(),
            workshop(),
            precision="fp16",
        )


Nodes = Callable[[], list[onnx.NodeProto]]


def RELU() -> list[onnx.NodeProto]:
    return [helper.make_node("Relu", ["float"], ["embeddings"], name="relu")]


def UNSUPPORTED() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Det", ["float"], ["d"], name="my_det"),
        helper.make_node("Relu", ["float"], ["embeddings"]),
    ]


def FOREIGN() -> list[onnx.NodeProto]:
    return [helper.make_node("Frobnicate", ["float"], ["embeddings"], name="frob", domain="my")]


def BODYLESS() -> list[onnx.NodeProto]:
    return [
        helper.make_node(
            "AttentionPool",
            ["float"],
            ["embeddings"],
            name="pool",
            domain="sa_deploy",
            parts=2,
            normalize="sum",
        )
    ]


def quantised(zero: int, kind: int) -> Nodes:
    def nodes() -> list[onnx.NodeProto]:
        point = helper.make_tensor("z", kind, [], [zero])
        return [
            helper.make_node("Constant", [], ["unused"], value=point),
            helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["q"], name="my_q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["embeddings"]),
        ]

    return nodes


def write_model(
    path: Path,
    nodes: Nodes,
    *,
    batch: int | None = None,
    zero: tuple[int, int] = (0, TensorProto.INT8),
) -> Path:
    """A float NHWC graph of 4 x 4 pixels around ``nodes``, with a contract."""
    contract = Contract(
        input=InputSpec(height=4, width=4, dtype="float32"),
        output=OutputSpec(dim=48),
        weights_sha256="0" * 64,
        space="test",
        max_batch=batch,
        fixed_batch=batch is not None,
    )
    size = "N" if batch is None else batch
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["images"], ["float"], perm=[0, 3, 1, 2]), *nodes()],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [size, 4, 4, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("zero", zero[1], [], [zero[0]]),
        ],
    )
    opsets = [helper.make_opsetid(name, n) for name, n in (("", 18), ("my", 1), ("sa_deploy", 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (
            UNSUPPORTED,
            r"node 'my_det' \(operator Det, UNSUPPORTED_NODE\).* TensorRT has no layer for Det; "
            r"export with another --opset, or run the file on another runtime",
        ),
        (
            FOREIGN,
            r"node 'frob' \(operator Frobnicate, INVALID_NODE\).*no layer for Frobnicate",
        ),
        (
            BODYLESS,
            r"node 'pool' \(operator AttentionPool.* carries its function body",
        ),
    ],
)
def test_parser_errors_name_node_operator_and_remedy(
    tmp_path: Path, nodes: Nodes, text: str
) -> None:
    graph = read_graph(write_model(tmp_path / "m.onnx", nodes))
    with pytest.raises(BuildError, match=text):
        build_engine(graph, tmp_path / "m.engine", options(), workshop())
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize(
    ("zero", "came"), [((3, TensorProto.INT8), "int8 3"), ((0, TensorProto.UINT8), "uint8 0")]
)
def test_asymmetric_int8_is_refused(tmp_path: Path, zero: tuple[int, int], came: str) -> None:
    path = write_model(tmp_path / "m.onnx", quantised(*zero), zero=zero)
    with pytest.raises(BuildError, match=rf"node 'my_q' .* zero point of {came}, expected int8 0"):
        build_engine(read_graph(path), tmp_path / "m.engine", options(), workshop())


def test_broken_files_are_refused(exported_models: dict[str, Path], tmp_path: Path) -> None:
    whole = exported_models["fp32"].read_bytes()
    broken = tmp_path / "broken.onnx"
    for content in (b"", b"not an onnx file at all", whole[:5000]):
        broken.write_bytes(content)
        with pytest.raises((InputError, ContractError), match=r"broken\.onnx"):
            read_graph(broken)
    with pytest.raises(InputError, match=r"expected an \.onnx file"):
        read_graph(tmp_path / "model.pt")


def test_weights_in_other_files_are_found_and_hashed(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", RELU)
    plain = read_graph(path).sha256
    model = onnx.load(str(path))
    tensor = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"weights\.bin, which is missing"):
        read_graph(path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4)
    first = read_graph(path).sha256
    (tmp_path / "weights.bin").write_bytes(b"\1" * 4)
    assert len({plain, first, read_graph(path).sha256}) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"plugin": True}, "--plugin: TensorRT-RTX has no plugin layers"),
        ({"version_compat": True}, "--version-compat: TensorRT-RTX has no version-compatible"),
    ],
)
def test_what_rtx_does_not_have_is_refused(
    exported_models: dict[str, Path], tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    graph = read_graph(exported_models["fp32"])
    with pytest.raises(InputError, match=text):
        build_engine(graph, tmp_path / "m.engine", options(**changes), workshop())


def test_the_plugin_is_never_registered_for_rtx(
    exported_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Its parser takes the node of a registered plugin and then aborts the process.
    def refuse(*_: object) -> None:
        raise AssertionError("registered")

    monkeypatch.setattr("sa_runtime.tensorrt.build.register_attention_pool", refuse)
    graph = read_graph(exported_models["fp32"])
    assert build_engine(graph, tmp_path / "m.engine", options(), workshop()).plugin_nodes == 0


def test_batches_the_profile_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--min-batch 4 --opt-batch 2 --max-batch 8: expected 1"):
        options(sizes=(4, 2, 8))
    graph = read_graph(write_model(tmp_path / "m.onnx", RELU))
    changed = dataclasses.replace(
        graph.contract, input=dataclasses.replace(graph.contract.input, height=5)
    )
    with pytest.raises(BuildError, match=r"cannot build it: .*profile has min=5.*tensor has 4"):
        build_engine(
            dataclasses.replace(graph, contract=changed),
            tmp_path / "m.engine",
            options(),
            workshop(),
        )


class Counting:
    """A workshop whose builds are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.builds = 0
        self.notes: list[str] = []
        plain = engines.build_engine

        def counting(*arguments: object, **named: object) -> object:
            self.builds += 1
            return plain(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(engines, "build_engine", counting)

    def workshop(self, **changes: object) -> Workshop:
        return workshop(note=self.notes.append, **changes)


def test_the_cache_builds_once_and_again_when_something_matters(
    exported_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    model = tmp_path / "model.onnx"
    model.write_bytes(exported_models["fp16"].read_bytes())
    folder = tmp_path / "cache"

    def ask(asked: BuildOptions = options()) -> Path:  # noqa: B008
        return cached_engine(read_graph(model), folder, asked, counting.workshop())[0]

    engine = ask()
    assert counting.notes[-1].endswith("there is no engine yet; building it")
    assert ask() == engine
    assert counting.builds == 1

    model.write_bytes(exported_models["fp32"].read_bytes())
    assert ask() == engine  # in place
    assert "model.onnx has changed since the engine was built" in counting.notes[-1]

    other = ask(options(sizes=(1, 2, 4)))
    assert other != engine  # beside it: both may be in use
    assert counting.builds == 3

    engine.write_bytes(engine.read_bytes()[:-1])
    ask()
    assert "the engine is not the one its sidecar describes" in counting.notes[-1]

    fields = json.loads(sidecar_path(engine).read_text())
    sidecar_path(engine).write_text(json.dumps({**fields, "tensorrt_version": "1.2.3"}))
    ask()
    assert "it was built by TensorRT 1.2.3 and this is" in counting.notes[-1]

    sidecar_path(engine).write_text("{")
    ask()
    assert "not an engine's sidecar" in counting.notes[-1]
    assert counting.builds == 6


def test_engines_of_two_gpus_lie_beside_each_other(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    graph = read_graph(exported_models["fp32"])
    names = {
        engines.cache_name(
            graph,
            options(),
            workshop(
                machine=Machine(
                    cuda_version=13000,
                    gpus=(Gpu(index=0, name=name, compute_capability=90, memory_bytes=1),),
                    problem="",
                )
            ),
        )
        for name in ("NVIDIA H100 80GB HBM3", "NVIDIA L4")
    }
    assert len(names) == 2
    assert any("nvidia-h100-80gb-hbm3" in name for name in names)


ASK = """
import sys
from pathlib import Path
from sa_runtime.tensorrt.engines import Workshop, cached_engine
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.locking import locked
from sa_runtime.tensorrt.options import BuildOptions, Profile
from sa_runtime.tensorrt.probe import Machine

workshop = Workshop(
    flavour=load_flavour("tensorrt-rtx"),
    machine=Machine(cuda_version=None, gpus=(), problem="none"),
    note=lambda text: print(text, flush=True),
)
options = BuildOptions(profile=Profile(min=1, opt=4, max=8))
engine, info = cached_engine(read_graph(Path(sys.argv[1])), Path(sys.argv[2]), options, workshop)
print("got", engine, info.engine_sha256, flush=True)
"""


def test_processes_that_ask_at_once_share_one_build(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    model, folder = exported_models["fp32"], tmp_path / "cache"
    engine = folder / engines.cache_name(read_graph(model), options(), workshop())
    with contextlib.ExitStack() as stack:
        with locked(engine):
            asking = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", ASK, model, folder],
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                for _ in range(3)
            ]
            for process in asking:
                assert process.stdout is not None
                assert "another process is building it, waiting" in process.stdout.readline()
        answers = [process.communicate(timeout=60)[0].splitlines() for process in asking]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert sum("there is no engine yet; building it" in lines[0] for lines in answers) == 1
    assert len({lines[-1] for lines in answers}) == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".engine", ".json", ".lock"]


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
@pytest.mark.parametrize(("precision", "kind"), [("fp32", "FLOAT"), ("fp16", "HALF")])
def test_a_resnet50_builds_in_seconds(tmp_path: Path, precision: str, kind: str) -> None:
    import torch

    from sa_export.contracts import contract_of
    from sa_export.deploy import Border, DeployNetwork
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
    deployed = DeployNetwork(network, Border(compute=precision))  # type: ignore[arg-type]
    checkpoint = Checkpoint(
        path=tmp_path / "none.pt", network=network, recipe=recipe, epoch=0, training={}
    )
    asked = ExportOptions(precision=precision)  # type: ignore[arg-type]
    contract = contract_of(checkpoint, deployed, asked)
    path = tmp_path / "resnet50.onnx"
    path.write_bytes(onnx_from_network(deployed, contract).SerializeToString())
    info = build_engine(read_graph(path), tmp_path / "r.engine", options(), workshop())
    assert info.build_seconds < 60
    assert info.compute_types == {kind: 53}
    assert info.layers["CONVOLUTION"] == 53
