"""What the real TensorRT-RTX parser and builder refuse, and how it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, numpy_helper

from sa_runtime.errors import BuildError, ContractError, InputError
from sa_runtime.system.gpus import Gpu, Machine
from sa_runtime.tensorrt.engines import build_engine
from sa_runtime.tensorrt.graph import read_graph
from tests.runtime.tensorrt.rtx_context import context, options
from tests.runtime.tensorrt.small_models import (
    BODYLESS,
    FOREIGN,
    RELU,
    UNSUPPORTED,
    Nodes,
    quantised,
    write_model,
)

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def test_what_the_graph_is_not_is_refused_with_the_command_that_gives_it(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    text = r"precision='fp16': the graph is fp32 .* --onnx --precision fp16"
    with pytest.raises(InputError, match=text):
        build_engine(
            read_graph(exported_models["fp32"]),
            tmp_path / "m.engine",
            options(),
            context(),
            precision="fp16",
        )


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (
            UNSUPPORTED,
            r"node 'my_det' \(operator Det, UNSUPPORTED_NODE\).* TensorRT has no layer for Det; "
            r"export with another opset, or run the file on another runtime",
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
        build_engine(graph, tmp_path / "m.engine", options(), context())
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize(
    ("zero", "came"), [((3, TensorProto.INT8), "int8 3"), ((0, TensorProto.UINT8), "uint8 0")]
)
def test_asymmetric_int8_is_refused(tmp_path: Path, zero: tuple[int, int], came: str) -> None:
    path = write_model(tmp_path / "m.onnx", quantised(*zero), zero=zero)
    with pytest.raises(BuildError, match=rf"node 'my_q' .* zero point of {came}, expected int8 0"):
        build_engine(read_graph(path), tmp_path / "m.engine", options(), context())


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
    tensor.external_data.add(key="location", value="parts/weights.bin")
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"weights\.bin is missing"):
        read_graph(path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "weights.bin").write_bytes(b"\0" * 4)
    first = read_graph(path).sha256
    (tmp_path / "parts" / "weights.bin").write_bytes(b"\1" * 4)
    assert len({plain, first, read_graph(path).sha256}) == 3
    for outside in ("../weights.bin", str(tmp_path / "parts" / "weights.bin")):
        tensor.external_data[0].value = outside
        model.graph.initializer[-1].CopyFrom(tensor)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(
            InputError, match=r"weights\.bin', (which leaves|expected a path relative)"
        ):
            read_graph(path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"plugin": True}, "plugin=True: TensorRT-RTX has no plugin layers"),
        ({"version_compat": True}, "version_compat=True: TensorRT-RTX has no version-compatible"),
        (
            {"strip": True},
            "strip=True: TensorRT-RTX needs an NVIDIA GPU for it and none",
        ),
        ({"hardware_compat": "same-cc"}, "hardware_compat='same-cc': TensorRT-RTX needs an NVIDIA"),
    ],
)
def test_what_rtx_does_not_have_here_is_refused(
    exported_models: dict[str, Path], tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    graph = read_graph(exported_models["fp32"])
    with pytest.raises(InputError, match=text):
        build_engine(graph, tmp_path / "m.engine", options(**changes), context())


def test_batches_the_profile_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`min_batch=4` `opt_batch=2` `max_batch=8`: expected 1"):
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
            context(),
        )


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"strip": True}, "strip=True"),
        ({"hardware_compat": "same-cc"}, "hardware_compat='same-cc'"),
    ],
)
def test_what_tensorrt_rtx_compiles_on_the_gpu_is_refused_on_one_it_does_not_know(
    exported_models: dict[str, Path], tmp_path: Path, changes: dict[str, Any], flag: str
) -> None:
    h100 = Gpu(index=0, name="NVIDIA H100", compute_capability=90, memory_bytes=80 << 30)
    machine = Machine(cuda_version=13000, gpus=(h100,), problem="")
    on_h100 = dataclasses.replace(context(), machine=machine)
    asked = dataclasses.replace(options(), **changes)
    text = f"{flag}: TensorRT-RTX runs on .* and NVIDIA H100 has 9.0; build without it, or on the"
    with pytest.raises(InputError, match=text):
        build_engine(read_graph(exported_models["fp32"]), tmp_path / "m.engine", asked, on_h100)
