"""fp16 and int8 of adopted models: convolutions, depthwise ones, shared gates, attention blocks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_export.half import half_model
from sa_export.space import probe_crops
from sa_runtime.errors import InputError
from sa_runtime.runners.opening import open_runner
from sa_training.architectures.osnet import OSNet, osnet_config
from tests.export.test_foreign_checkpoints import seeded

SIZE = ["--height", 64, "--width", 32, "--validation-crops", 12]
# Random weights retrieve nobody: what int8 costs is held by the cosine here.
ANY_DROP = ["--max-map-drop", 100]


def run(*words: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def osnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and ``osnet.onnx`` that was adopted from it."""
    folder = tmp_path_factory.mktemp("osnet")
    torch.manual_seed(0)
    torch.save(seeded(OSNet(osnet_config("osnet_x0_25"))).state_dict(), folder / "osnet.pth")
    run("adopt", folder / "osnet.pth", "--out", folder / "osnet.onnx", *SIZE)
    return folder


def vectors(path: Path) -> Any:
    with open_runner(path) as runner:
        return runner.run(probe_crops(64, 32))


@pytest.mark.parametrize(
    ("precision", "formats", "least"),
    [("fp16", "onnx,openvino", 0.999), ("int8", "onnx,openvino", 0.9)],
)
def test_an_adopted_model_is_exported_further(
    precision: str, formats: str, least: float, osnet: Path, tmp_path: Path
) -> None:
    words = ["--precision", precision, "--format", formats, "--out", tmp_path, *ANY_DROP]
    made = run("export", osnet / "osnet.onnx", *words, "--validation-crops", 12)
    expected = vectors(osnet / "osnet.onnx")
    spaces = {artefact["contract"]["space"] for artefact in made["artefacts"]}
    for artefact in made["artefacts"]:
        found = vectors(Path(artefact["file"]))
        assert np.einsum("nd,nd->n", found, expected).min() > least
        assert not np.array_equal(found, expected)
    assert len(spaces) == 1
    if precision == "int8":
        graph = onnx.load(str(tmp_path / "model.int8.onnx")).graph
        makers = {node.output[0]: node for node in graph.node}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        lowered = [n for n in convolutions if makers[n.input[0]].op_type == "DequantizeLinear"]
        depthwise = [n for n in lowered if any(a.name == "group" and a.i > 1 for a in n.attribute)]
        assert len(depthwise) == 60  # ten in each of six blocks
        # The gates see one vector for each image, which takes no time.
        assert len(convolutions) - len(lowered) == 48


def test_a_graph_in_fp16_keeps_its_input_and_output(osnet: Path) -> None:
    half = half_model(onnx.load(str(osnet / "osnet.onnx")))
    kinds = Counter(item.data_type for item in half.graph.initializer)
    assert kinds[onnx.TensorProto.FLOAT16] > 150
    assert [value.type.tensor_type.elem_type for value in half.graph.input] == [2]  # uint8
    assert [value.type.tensor_type.elem_type for value in half.graph.output] == [1]  # float32
    session = ort.InferenceSession(half.SerializeToString())
    (found,) = session.run(None, {"images": probe_crops(64, 32)})
    # Random weights enlarge what rounding leaves: a trained network stays far closer.
    assert np.einsum("nd,nd->n", found, vectors(osnet / "osnet.onnx")).min() > 0.99


def test_what_an_adopted_graph_cannot_follow_is_refused(osnet: Path, tmp_path: Path) -> None:
    for words, text in (
        (["--height", "128"], "leave `height` out, or adopt the original again"),
        (["--recipe", "sa"], "leave `recipe` out"),
        (["--format", "torchscript"], "an ONNX graph cannot be written as TorchScript"),
        (["--precision", "bf16"], "expected fp32, fp16 or int8"),
    ):
        given = ["export", str(osnet / "osnet.onnx"), "--out", str(tmp_path), *words]
        done = CliRunner().invoke(app, [*given, *([] if "--format" in words else ["--onnx"])])
        assert isinstance(done.exception, InputError), done.output
        assert text in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_attention_blocks_are_quantised(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: no vision transformer here")
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=(64, 32), depth=2
    ).eval()
    source, out = tmp_path / "vit.pt", tmp_path / "vit.int8.onnx"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        traced = torch.jit.trace(network, torch.zeros(1, 3, 64, 32))  # type: ignore[no-untyped-call]
        traced.save(str(source))
    run("adopt", source, "--out", out, *SIZE, "--precision", "int8", *ANY_DROP)
    graph = onnx.load(str(out)).graph
    made = {node.output[0]: node.op_type for node in graph.node}
    lowered = Counter(
        node.op_type
        for node in graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and made[node.input[0]] == "DequantizeLinear"
    )
    # The patches; of each block qkv, the projection behind attention, and the two of its MLP.
    assert (lowered["Conv"], lowered["MatMul"] + lowered["Gemm"]) == (1, 8)
    run("adopt", source, "--out", tmp_path / "vit.onnx", *SIZE)
    expected, found = vectors(tmp_path / "vit.onnx"), vectors(out)
    assert np.einsum("nd,nd->n", found, expected).min() > 0.95


@pytest.mark.parametrize(("suffix", "preprocessing"), [("onnx", "caffe"), ("torchscript", "unit")])
def test_float_planes_give_the_vectors_that_bytes_give(
    suffix: str, preprocessing: str, osnet: Path, tmp_path: Path
) -> None:
    """`adopt` itself compares both with the network; their spaces name the same function."""
    words = [*SIZE, "--preprocessing", preprocessing]
    found = []
    for kind in ("uint8-nhwc", "nchw-float"):
        out = tmp_path / f"{kind}.{suffix}"
        made = run("adopt", osnet / "osnet.pth", "--out", out, "--input", kind, *words)
        assert made["parity"]["min_cosine"] > 0.99999
        found.append((made["space"], vectors(out)))
    (space, bytes_), (space_2, planes) = found
    assert space == space_2
    np.testing.assert_allclose(bytes_, planes, atol=1e-5)


def test_servers_take_an_adopted_model(osnet: Path, tmp_path: Path) -> None:
    model = str(osnet / "osnet.onnx")
    done = CliRunner().invoke(app, ["bundle", model, "--triton", str(tmp_path / "models")])
    assert done.exit_code == 0, (done.output, done.exception)
    config = (tmp_path / "models" / "sa_reid" / "config.pbtxt").read_text()
    assert 'name: "images" data_type: TYPE_UINT8 dims: [64, 32, 3]' in config
    assert 'name: "embeddings" data_type: TYPE_FP32 dims: [512]' in config
    section = tmp_path / "reid.yml"
    done = CliRunner().invoke(
        app, ["bundle", str(osnet / "osnet.onnx"), "--deepstream", str(section)]
    )
    assert "`sa-deploy adopt MODEL --out FILE.onnx --input nchw-float`" in str(done.exception)
    planes = tmp_path / "planes.onnx"
    run("adopt", osnet / "osnet.pth", "--out", planes, "--input", "nchw-float", *SIZE)
    done = CliRunner().invoke(app, ["bundle", str(planes), "--deepstream", str(section)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "inferDims: [3, 64, 32]" in section.read_text()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_of_an_adopted_model(
    precision: str, osnet: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    model = osnet / "osnet.onnx"
    if precision != "fp32":
        words = ["--precision", precision, "--onnx", "--out", tmp_path, *ANY_DROP]
        target = ["--int8-target", "tensorrt"] if precision == "int8" else []
        made = run("export", model, *words, *target, "--validation-crops", 12)
        model = Path(made["artefacts"][0]["file"])
    engine = tmp_path / "osnet.engine"
    built = run("build", model, "--flavour", "tensorrt-rtx", "--max-batch", 4, "--out", engine)
    assert (built["engine"], built["batch"]["max"]) == (str(engine), 4)
    contract = run("inspect", engine)["contract"]
    assert contract["space"] == run("inspect", osnet / "osnet.onnx")["contract"]["space"]
    assert contract["precision"] == precision
