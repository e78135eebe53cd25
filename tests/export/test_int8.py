"""Q/DQ insertion, and int8 of networks that are easy and hard to quantise."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from sa_export.artefacts import Exporter
from sa_export.crop_set import CropSet
from sa_export.gates import DEFAULT_GATES
from sa_export.options import ExportOptions
from sa_export.quantize.layers import layers, quantised_tensors
from sa_export.quantize.qdq import quantise
from sa_export.quantize.quantizer import Calibration
from sa_export.quantize.scheme import SCHEMES, Target, quantised_weights
from sa_runtime.errors import InputError, ParityError
from sa_training.checkpoints import Checkpoint

TARGETS: tuple[Target, ...] = ("tensorrt", "cpu", "any")
LAYERS = [
    "conv1",
    "layer1.0.conv1", "layer1.0.conv2",
    "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0",
    "layer3.0.conv1", "layer3.0.conv2", "layer3.0.downsample.0",
    "layer4.0.conv1", "layer4.0.conv2", "layer4.0.downsample.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(trained: Checkpoint, crops: CropSet) -> dict[str, ModelProto]:
    exporter = Exporter(trained, ExportOptions(embeddings=("reduced",)), crops)
    return {rest: exporter.onnx_model(plugin=True, compute=rest) for rest in ("fp32", "fp16")}


def initializers(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def test_layers_are_the_backbones_convolutions(models: dict[str, ModelProto]) -> None:
    assert sorted(layers(models["fp32"])) == sorted(LAYERS)
    assert "reduce.weight" in initializers(models["fp32"])


@pytest.mark.parametrize("target", TARGETS)
def test_each_targets_rules_hold(models: dict[str, ModelProto], target: Target) -> None:
    scheme = SCHEMES[target]
    model = models[scheme.rest]
    tensors = quantised_tensors(model, scheme)
    made = quantise(model, dict.fromkeys(tensors, (-1.0, 3.0)), scheme)
    values = initializers(made)
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds["QuantizeLinear"] == len(tensors) == (14 if target == "cpu" else 9)
    biases = 12 if target == "cpu" else 0
    assert kinds["DequantizeLinear"] == len(tensors) + 12 + biases
    for name, zero in values.items():
        if name.endswith(".weight_zero_point"):
            assert zero.dtype == np.int8
            assert not zero.any()
        elif name.endswith("_zero_point") and not name.endswith(".bias_zero_point"):
            assert zero.dtype == (np.uint8 if target == "cpu" else np.int8)
            assert int(zero) == (64 if target == "cpu" else 0)
    scale = np.float16 if target == "tensorrt" else np.float32
    assert {v.dtype for k, v in values.items() if k.endswith("_scale")} == {np.dtype(scale)}
    for layer in LAYERS:
        weights = values[f"base.{layer}.weight_q"]
        assert weights.dtype == np.int8
        assert weights.min() >= -127
        assert values[f"base.{layer}.weight_scale"].shape == (len(weights),)
    assert values["reduce.weight"].dtype == scale


@pytest.mark.parametrize("target", TARGETS)
def test_a_convolution_without_bias_is_quantised(
    models: dict[str, ModelProto], target: Target
) -> None:
    scheme = SCHEMES[target]
    model = copy.deepcopy(models[scheme.rest])
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    del node.input[2]
    ranges = dict.fromkeys(quantised_tensors(model, scheme), (-1.0, 3.0))
    made = quantise(model, ranges, scheme)
    (found,) = (other for other in made.graph.node if other.output == node.output)
    assert [name.removesuffix("_dq") for name in found.input] == list(node.input)
    onnx.checker.check_model(made)


def test_a_kept_layer_stays_as_it_was(models: dict[str, ModelProto]) -> None:
    scheme = SCHEMES["any"]
    kept = ["conv1", "layer4.0.conv2"]
    tensors = quantised_tensors(models["fp32"], scheme, kept)
    assert len(tensors) == 7
    made = quantise(models["fp32"], dict.fromkeys(tensors, (0.0, 3.0)), scheme, kept)
    before, after = initializers(models["fp32"]), initializers(made)
    for layer in kept:
        assert (after[f"base.{layer}.weight"] == before[f"base.{layer}.weight"]).all()
    assert "base.layer1.0.conv1.weight" not in after


@example(3, 3, [0.0] * 8 + [2.0**-14] + [0.0] * 11)
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.floats(-100, 100, width=32), min_size=20, max_size=20),
)
def test_weights_are_rounded_by_half_a_step_at_most(
    outside: int, inside: int, values: list[float]
) -> None:
    weights = np.resize(np.array(values, np.float32), (outside, inside, 1, 1))
    for half in (False, True):
        quantised, scale = quantised_weights(weights, half=half)
        error = np.abs(quantised * scale[:, None, None, None] - weights)
        assert (error <= scale[:, None, None, None] * 0.5001 + np.abs(weights) * 1e-6).all()
        assert np.abs(quantised.astype(int)).max() <= 127


def exporter_of(
    checkpoint: Checkpoint,
    crops: CropSet,
    calibration: CropSet,
    target: Target | None,
    calibrator: str = "entropy",
    *,
    equalise: bool = True,
) -> tuple[Exporter, list[str]]:
    notes: list[str] = []
    chosen = Calibration(
        images=calibration.images,
        source="generated",
        target=target,
        calibrator=calibrator,  # type: ignore[arg-type]
        equalise=equalise,
    )
    options = ExportOptions(precision="int8")
    return Exporter(checkpoint, options, crops, calibration=chosen, on_note=notes.append), notes


@pytest.mark.parametrize(
    ("target", "calibrator"),
    [("tensorrt", "entropy"), ("cpu", "mse"), ("any", "percentile"), ("any", "min-max")],
)
def test_the_trained_network_loses_half_a_point_at_most(
    trained: Checkpoint,
    crops: CropSet,
    calibration: CropSet,
    tmp_path: Path,
    target: Target,
    calibrator: str,
) -> None:
    exporter, _ = exporter_of(trained, crops, calibration, target, calibrator)
    artefact = exporter.write("onnx", tmp_path)
    drop = artefact.parity["parts"].map_drop
    assert drop is not None
    assert drop <= 0.5
    said = artefact.contract.quantization
    assert (said["target"], said["calibrator"], said["layers"]) == (target, calibrator, 12)
    assert said["calibration_crops"] == 96


def with_a_fragile_layer(checkpoint: Checkpoint) -> Checkpoint:
    """The same function, but one channel between two layers is a thousand times as large.

    It takes the whole range of its tensor, so that the others are rounded to nothing; only the
    layer that reads the tensor is to blame.
    """
    network = copy.deepcopy(checkpoint.network)
    block = network.base.get_submodule("layer3.0")
    with torch.no_grad():
        block.bn1.weight[0] *= 1000  # type: ignore[operator, index, union-attr]
        block.bn1.bias[0] *= 1000  # type: ignore[operator, index, union-attr]
        block.conv2.weight[:, 0] /= 1000  # type: ignore[operator, index, union-attr]
    return dataclasses.replace(checkpoint, network=network)


def test_the_layer_that_cannot_be_quantised_is_found_and_kept(
    trained: Checkpoint, crops: CropSet, calibration: CropSet, tmp_path: Path
) -> None:
    fragile = with_a_fragile_layer(trained)
    exporter, notes = exporter_of(fragile, crops, calibration, "any", "min-max", equalise=False)
    artefact = exporter.write("onnx", tmp_path)
    said = artefact.contract.quantization
    assert list(said["kept"]) == ["layer3.0.conv2"]
    assert said["map_drop_all_quantised"] > 0.5
    assert said["kept"]["layer3.0.conv2"]["map_drop_alone"] > 0.5
    drop = artefact.parity["parts"].map_drop
    assert drop is not None
    assert drop <= 0.5
    assert "1 of 12 layers stay in float" in " ".join(notes)
    assert said["trials"] == len([note for note in notes if "points of mAP" in note]) == 14
    types = {
        item.name: item.data_type for item in exporter.onnx_model(plugin=True).graph.initializer
    }
    assert types["base.layer3.0.conv2.weight"] == TensorProto.FLOAT


def test_equalised_the_same_network_is_quantised_as_a_whole(
    trained: Checkpoint, crops: CropSet, calibration: CropSet, tmp_path: Path
) -> None:
    fragile = with_a_fragile_layer(trained)
    exporter, _ = exporter_of(fragile, crops, calibration, "any", "min-max")
    said = exporter.write("onnx", tmp_path).contract.quantization
    assert said["equalised"]
    assert said["kept"] == {}
    assert said["map_drop_all_quantised"] <= 0.5


def test_where_nothing_can_be_quantised_the_user_is_told(
    trained: Checkpoint, crops: CropSet, calibration: CropSet, tmp_path: Path
) -> None:
    exporter, _ = exporter_of(trained, crops, calibration, "any")
    exporter.gates = dataclasses.replace(DEFAULT_GATES["int8"], min_cosine=1.1)
    few = CropSet(source="few", images=crops.images[::30], names=crops.names[::30], queries=3)
    exporter.crops = few
    with pytest.raises(ParityError, match="no layer can be quantised within the limits") as caught:
        exporter.write("onnx", tmp_path)
    assert caught.value.exit_code == 3
    assert "`sa-deploy train --qat --resume CHECKPOINT`" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_words_list_the_choices(calibration: CropSet) -> None:
    with pytest.raises(InputError, match="target='gpu': unknown; choose from tensorrt, cpu"):
        Calibration(images=calibration.images, source="x", target="gpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="calibrator='mean': unknown; choose from min-max"):
        Calibration(images=calibration.images, source="x", calibrator="mean")  # type: ignore[arg-type]
