"""The ONNX graph: what stands in it, and the operator's body against the NumPy reference."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from sa_export import onnx_file
from sa_export.attention_pool import (
    DOMAIN,
    OP_TYPE,
    attention_pool_function,
    attention_pool_node_attributes,
)
from sa_export.contracts import contract_of, resized
from sa_export.deploy import DeployNetwork, GraphSpec
from sa_export.lowering import plain_attention, plain_pool
from sa_export.onnx_file import onnx_from_network
from sa_export.openvino_workarounds import trapped_nodes
from sa_export.options import ExportOptions
from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, attention_map, attention_pool
from sa_runtime.errors import InputError, ParityError
from sa_training.checkpoints import Checkpoint, load_checkpoint
from sa_training.network import NetworkConfig, SANetwork
from sa_training.pixels import network_input
from tests.conftest import tiny_network

CHAINS = {"Shape", "Gather", "BatchNormalization", "ConstantOfShape", "Identity", "Range", "Expand"}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: object) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)  # type: ignore[arg-type]


def exported(
    checkpoint: Checkpoint, spec: GraphSpec | None = None, *, plugin: bool = True, **options: object
) -> ModelProto:
    spec = spec or GraphSpec()
    deployed = DeployNetwork(checkpoint.network, spec)
    said = ExportOptions(embeddings=spec.embeddings, **options)  # type: ignore[arg-type]
    contract = contract_of(checkpoint, deployed, said)
    opset = 22 if spec.compute == "bf16" else 18
    return onnx_from_network(deployed, contract, opset=opset, plugin=plugin)


def run(model: ModelProto, images: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"images": images})  # type: ignore[no-any-return]


def operator_model(
    parts: int, normalize: Normalize, shape: tuple[int, ...], kind: int
) -> ModelProto:
    attributes = attention_pool_node_attributes(parts, normalize, shape[2], shape[3])
    node = helper.make_node(OP_TYPE, ["x"], ["y"], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "operator",
        [helper.make_tensor_value_info("x", kind, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("y", kind, ["N", shape[1], parts])],
    )
    return helper.make_model(
        graph,
        functions=[attention_pool_function(normalize)],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 13), st.integers(1, 5)),
    normalize=st.sampled_from(NORMALIZATIONS),
    half=st.booleans(),
    data=st.data(),
)
def test_the_function_body_is_the_operator(
    shape: tuple[int, ...], normalize: Normalize, half: bool, data: st.DataObject
) -> None:
    parts = data.draw(st.integers(1, shape[2]))
    seed = data.draw(st.integers(0, 99))
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    x: NDArray[np.floating] = np.random.default_rng(seed).random(shape).astype(dtype)
    x[0] *= 0  # an all-zero map attends uniformly
    session = onnxruntime.InferenceSession(
        operator_model(parts, normalize, shape, kind).SerializeToString()
    )
    found = session.run(None, {"x": x})[0]
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, attention_pool(x, parts, normalize), rtol=2e-3 if half else 2e-5, atol=1e-6
    )


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_half_maps_whose_sums_overflow_are_summed_in_float(normalize: Normalize) -> None:
    x = np.full((2, 512, 4, 3), 200.0, np.float16)
    x[:, :, 1] = 100.0
    session = onnxruntime.InferenceSession(
        operator_model(2, normalize, x.shape, TensorProto.FLOAT16).SerializeToString()
    )
    expected = attention_pool(x, 2, normalize)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=2e-3)
    plain = plain_pool(torch.from_numpy(x), 2, normalize).numpy()
    np.testing.assert_allclose(plain, expected, rtol=2e-3)


@pytest.mark.parametrize("normalize", ["sum", "softmax"])
def test_plain_attention_is_the_reference(normalize: Normalize) -> None:
    x = np.random.default_rng(0).random((3, 5, 8, 4)).astype(np.float32)
    x[1] = 0
    found = plain_attention(torch.from_numpy(x), normalize).numpy()
    np.testing.assert_allclose(found, attention_map(x, normalize), rtol=1e-5)


def test_the_tiny_graph_has_no_node_to_spare(checkpoint: Checkpoint) -> None:
    model = exported(checkpoint)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {
        "Cast": 1, "Transpose": 1, "Sub": 1, "Conv": 12, "Relu": 9, "MaxPool": 1, "Add": 4,
        "AttentionPool": 1, "ReduceL2": 2, "Clip": 2, "Div": 2, "Reshape": 1,
    }  # fmt: skip
    node = next(node for node in model.graph.node if node.op_type == "AttentionPool")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes["plugin_namespace"] == b"sa_deploy"
    assert attributes["plugin_version"] == b"1"
    assert [function.name for function in model.functions] == ["AttentionPool"]


def test_without_the_plugin_the_graph_is_plain(checkpoint: Checkpoint) -> None:
    model = exported(checkpoint, plugin=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert sum(kinds.values()) == 44
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize(
    ("compute", "plugin"), [("fp32", False), ("fp16", True), ("fp16", False), ("bf16", True)]
)
def test_no_graph_holds_chains_or_the_trap(
    checkpoint: Checkpoint, compute: str, plugin: bool
) -> None:
    spec = GraphSpec(
        embeddings=("parts", "global", "reduced"),
        compute=compute,  # type: ignore[arg-type]
        attention_map=True,
    )
    model = exported(checkpoint, spec, plugin=plugin)
    assert not CHAINS & {node.op_type for node in model.graph.node}
    assert trapped_nodes(model) == []
    if compute != "fp32":
        half = TensorProto.FLOAT16 if compute == "fp16" else TensorProto.BFLOAT16
        weights = {
            item.data_type for item in model.graph.initializer if item.name.endswith(".weight")
        }
        assert weights == {half}


def test_a_graph_with_the_trap_cannot_leave(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lowering as one would write it first: the mean over the flattened map."""

    def flat_pool(x_NCHW: torch.Tensor, parts: int, normalize: str) -> torch.Tensor:
        return x_NCHW.flatten(2).mean(dim=2, keepdim=True)

    monkeypatch.setattr(onnx_file, "plain_pool", flat_pool)
    with pytest.raises(ParityError, match=r"reduces three dimensions .*OpenVINO computes wrongly"):
        exported(checkpoint, GraphSpec(embeddings=("global",)), plugin=False)


def test_all_outputs_are_the_networks(checkpoint: Checkpoint) -> None:
    names = ("reduced", "parts", "global")
    model = exported(checkpoint, GraphSpec(embeddings=names, attention_map=True))
    assert [output.name for output in model.graph.output] == [
        "embeddings",
        "embeddings_parts",
        "embeddings_global",
        "attention",
    ]
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 64, 3), dtype=np.uint8)
    *vectors, attention = run(model, images)
    x = network_input(torch.from_numpy(images))
    with torch.inference_mode():
        for name, found in zip(names, vectors, strict=True):
            expected = checkpoint.network.embed(x, name).numpy()
            np.testing.assert_allclose(found, expected, atol=2e-6)
        last = checkpoint.network.base(x)[-1].numpy()
    np.testing.assert_allclose(attention, attention_map(last)[:, 0], rtol=1e-4)
    assert attention.mean(axis=(1, 2)) == pytest.approx(1, abs=1e-5)


def test_a_float_input_sees_what_a_uint8_input_sees(checkpoint: Checkpoint) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 128, 64, 3), dtype=np.uint8)
    expected = run(exported(checkpoint), images)[0]
    spec = GraphSpec(input="nchw-float")
    model = exported(checkpoint, spec, input="nchw-float")
    planes = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(run(model, planes)[0], expected, atol=2e-6)


def test_a_fixed_batch_is_written_into_the_graph(checkpoint: Checkpoint) -> None:
    model = exported(checkpoint, batch=3)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3


def test_another_size_keeps_the_weights_and_changes_the_space(checkpoint: Checkpoint) -> None:
    options = ExportOptions(height=160, width=80)
    network = resized(checkpoint.network, 160, 80)
    contract = contract_of(checkpoint, DeployNetwork(network, GraphSpec()), options)
    native = contract_of(
        checkpoint, DeployNetwork(checkpoint.network, GraphSpec()), ExportOptions()
    )
    assert (contract.input.height, contract.input.width) == (160, 80)
    assert contract.weights_sha256 == native.weights_sha256
    assert contract.space != native.space
    assert contract.flops > native.flops
    with pytest.raises(InputError, match=r"network parts=6: expected 1 to"):
        resized(checkpoint.network, 64, 64)


def test_what_weights_do_not_tell_changes_the_space() -> None:
    """One set of weights under several configurations, whose vectors differ."""

    def found(embedding: str, **settings: Any) -> tuple[str, np.ndarray[Any, Any]]:
        network = tiny_network(**settings)
        network.load_state_dict(weights, strict=False)
        made = Checkpoint(path=None, network=network, recipe=_recipe(), epoch=0, training={})  # type: ignore[arg-type]
        deployed = DeployNetwork(network, GraphSpec(embeddings=(embedding,)))
        with torch.inference_mode():
            vectors = network.embed(x, embedding).numpy()
        return contract_of(made, deployed, ExportOptions()).space, vectors

    weights = tiny_network().state_dict()
    x = torch.randn(2, 3, 128, 64, generator=torch.Generator().manual_seed(0))
    other: tuple[dict[str, Any], ...] = (
        *({}, {"attention": "stages"}, {"normalize": "softmax"}),
        *({"neck": "bn"}, {"backbone_attention": "parts"}, {"stage_scale": "unit"}),
    )
    for embedding in ("parts", "global", "reduced"):
        cases = [found(embedding, **settings) for settings in other]
        for (space, vectors), (space_2, vectors_2) in itertools.combinations(cases, 2):
            same = np.abs(vectors - vectors_2).max() < 1e-6
            assert (space == space_2) == same, (embedding, cases)


def test_work_is_counted_as_by_hand() -> None:
    """conv1 alone: 64 x 32 outputs, 32 channels, 7 x 7 x 3 products and sums."""
    network = tiny_network()
    contract = contract_of(
        Checkpoint(path=None, network=network, recipe=_recipe(), epoch=0, training={}),  # type: ignore[arg-type]
        DeployNetwork(network, GraphSpec()),
        ExportOptions(),
    )
    first = 2 * 64 * 32 * 32 * 7 * 7 * 3
    blocks = 0
    for inside, outside, rows, columns in ((32, 32, 32, 16), (32, 64, 16, 8), (64, 128, 8, 4)):
        blocks += 2 * rows * columns * outside * 9 * (inside + outside)
        blocks += 2 * rows * columns * outside * inside if inside != outside else 0
    blocks += 2 * 8 * 4 * 256 * (9 * (128 + 256) + 128)
    assert contract.flops == first + blocks


def test_what_cannot_be_exported_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"embeddings=\('parts', 'parts'\): expected each"):
        GraphSpec(embeddings=("parts", "parts"))
    with pytest.raises(InputError, match="choose from uint8-nhwc, nchw-float"):
        GraphSpec(input="hwc")  # type: ignore[arg-type]
    network = tiny_network(attention="stages")
    with pytest.raises(InputError, match="attention_map=True: this network has attention"):
        DeployNetwork(network, GraphSpec(attention_map=True))
    deployed = DeployNetwork(checkpoint.network, GraphSpec(compute="bf16"))
    contract = contract_of(checkpoint, deployed, ExportOptions(precision="bf16"))
    with pytest.raises(InputError, match="opset=18: expected at least 22 at precision bf16"):
        onnx_from_network(deployed, contract)


@pytest.mark.slow
def test_the_resnet50_graph_has_no_node_to_spare() -> None:
    torch.manual_seed(0)
    network = SANetwork(NetworkConfig(classes=4)).eval()
    checkpoint = Checkpoint(path=None, network=network, recipe=_recipe(), epoch=0, training={})  # type: ignore[arg-type]
    model = exported(checkpoint)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {
        "Cast": 1, "Transpose": 1, "Sub": 1, "Conv": 53, "Relu": 49, "MaxPool": 1, "Add": 16,
        "AttentionPool": 1, "ReduceL2": 2, "Clip": 2, "Div": 2, "Reshape": 1,
    }  # fmt: skip
    onnx.checker.check_model(model, full_check=True)


def _recipe() -> object:
    from sa_training.recipes import tiny

    return dataclasses.replace(tiny())
