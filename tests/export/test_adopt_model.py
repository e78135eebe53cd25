"""ONNX files of others: found out about, wrapped, compared with an independent computation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sa_export.adopt import AdoptedModel, adopt
from sa_export.crop_set import CropSet
from sa_export.foreign import ForeignModel, ModelHints, read_foreign
from sa_export.gates import DEFAULT_GATES
from sa_export.preprocessing import Preprocessing
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import InputError, ParityError, RunnerError
from sa_runtime.runners.opening import open_runner

H, W, C = 16, 8, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A foreign model: 1x1 convolution, ReLU, mean over the map, a scale for each channel.

    The mean is taken over a tensor of three dimensions, as some exporters write it.
    """

    layout: str = "nchw"
    half: bool = False
    batch: int | None = None
    opset: int = 18
    image: str = "input"
    output: str = "features"
    open_size: bool = False
    square: bool = False

    def weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(C, 3) of the convolution, (C,) of the scale."""
        rng = np.random.default_rng(4)
        return rng.normal(size=(C, 3)), rng.uniform(0.5, 1.5, C)

    def embed(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, H, W, 3) as the model wants them -> unit vectors, in float64."""
        convolution, scale = self.weights()
        vectors = np.maximum(pixels @ convolution.T, 0).mean(axis=(1, 2)) * scale
        unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def save(self, path: Path) -> Path:
        """Write it as ONNX."""
        kind = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        dtype = np.float16 if self.half else np.float32
        convolution, scale = self.weights()
        constants: dict[str, NDArray[Any]] = {
            "w": convolution[:, :, None, None].astype(dtype),
            "scale": scale[None].astype(dtype),
            "flat_shape": np.array([0, C, -1], np.int64),
        }
        nodes = []
        source = self.image
        if self.layout == "nhwc":
            nodes.append(helper.make_node("Transpose", [source], ["planes"], perm=[0, 3, 1, 2]))
            source = "planes"
        nodes += [
            helper.make_node("Conv", [source, "w"], ["images" if self.square else "conv"]),
            helper.make_node("Relu", ["images" if self.square else "conv"], ["relu"]),
            helper.make_node("Reshape", ["relu", "flat_shape"], ["flat"]),
        ]
        if self.opset >= 18:
            constants["axes"] = np.array([2], np.int64)
            nodes.append(helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=0))
        else:
            nodes.append(helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[2], keepdims=0))
        nodes.append(helper.make_node("Mul", ["mean", "scale"], [self.output]))
        batch = self.batch or "N"
        size = ["h", "w"] if self.open_size else [H, W]
        shape = [batch, 3, *size] if self.layout == "nchw" else [batch, *size, 3]
        graph = helper.make_graph(
            nodes,
            "foreign",
            [helper.make_tensor_value_info(self.image, kind, shape)],
            [helper.make_tensor_value_info(self.output, kind, [batch, C])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        onnx.save(model, str(path))
        return path


@pytest.fixture(scope="module")
def small() -> CropSet:
    """Twenty crops of noise with structure, at the size of the foreign models."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 4, 2, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    names = tuple(f"crop{i}" for i in range(20))
    return CropSet(source="noise", images=images, names=names, queries=5)


def adopted(
    model: Model,
    small: CropSet,
    tmp_path: Path,
    preprocessing: Preprocessing | None = None,
    wanted: ModelHints | None = None,
) -> tuple[ForeignModel, AdoptedModel]:
    foreign = read_foreign(model.save(tmp_path / "foreign.onnx"), wanted or ModelHints())
    return foreign, adopt(
        foreign,
        tmp_path / "adopted.onnx",
        preprocessing or Preprocessing(),
        small,
        DEFAULT_GATES["fp16" if model.half else "fp32"],
    )


@pytest.mark.parametrize(
    "model",
    [
        Model(),
        Model(layout="nhwc"),
        Model(half=True),
        Model(opset=11),
        Model(image="images", output="embeddings"),
        Model(square=True),
        Model(batch=4),
    ],
    ids=["nchw", "nhwc", "half", "opset11", "our-names", "our-name-inside", "fixed-batch"],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_adopted_model_is_right_in_every_runtime(
    model: Model, runtime: str, small: CropSet, tmp_path: Path
) -> None:
    """Against NumPy: RGB, ImageNet's mean and deviation, unit length; at batches of 1, 3 and 20."""
    _, made = adopted(model, small, tmp_path)
    assert made.rewritten == 1
    rgb = small.images[..., ::-1] / 255
    expected = model.embed((rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    with open_runner(made.path, runtime) as runner:
        assert runner.contract.fixed_batch == (model.batch is not None)
        for count in (1, 3, 20):
            found = runner.run(small.images[:count])
            np.testing.assert_allclose(found, expected[:count], atol=3e-3 if model.half else 2e-6)


@pytest.mark.parametrize(
    ("preprocessing", "pixels"),
    [
        (
            Preprocessing(colour="bgr"),
            lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        ),
        (
            Preprocessing(divisor=1, mean=(123.7, 116.3, 103.5), std=(1, 1, 1)),
            lambda x: x[..., ::-1] - np.array([123.7, 116.3, 103.5]),
        ),
        (
            Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            lambda x: x[..., ::-1] / 127.5 - 1,
        ),
    ],
    ids=["bgr", "caffe", "minus-one-to-one"],
)  # fmt: skip
def test_normalisation_is_what_the_user_says(
    preprocessing: Preprocessing, pixels: Any, small: CropSet, tmp_path: Path
) -> None:
    _, made = adopted(Model(), small, tmp_path, preprocessing)
    expected = Model().embed(pixels(small.images.astype(np.float64)))
    with open_runner(made.path, "onnxruntime") as runner:
        np.testing.assert_allclose(runner.run(small.images), expected, atol=2e-6)


def test_the_contract_says_where_it_came_from(small: CropSet, tmp_path: Path) -> None:
    _, made = adopted(Model(), small, tmp_path)
    contract = read_contract(made.path)
    assert contract == made.contract
    assert contract.network["adopted_from"] == "foreign.onnx"
    assert (contract.output.embedding, contract.output.dim) == ("adopted", C)
    assert (contract.input.height, contract.input.width, contract.input.dtype) == (H, W, "uint8")
    assert contract.parity["adopted"]["crops"] == 20
    _, other = adopted(Model(), small, tmp_path, Preprocessing(colour="bgr"))
    assert other.contract.weights_sha256 == contract.weights_sha256
    assert other.contract.space != contract.space


def test_a_size_left_open_is_asked_for(small: CropSet, tmp_path: Path) -> None:
    path = Model(open_size=True).save(tmp_path / "open.onnx")
    with pytest.raises(InputError, match="leaves the size of its input open; give `height`"):
        read_foreign(path, ModelHints())
    foreign = read_foreign(path, ModelHints(height=H, width=W))
    assert (foreign.height, foreign.width, foreign.dim) == (H, W, C)
    fixed = Model().save(tmp_path / "fixed.onnx")
    with pytest.raises(InputError, match="`height=99`, but the graph takes 16; leave it out"):
        read_foreign(fixed, ModelHints(height=99))


def test_a_fixed_batch_can_be_made_dynamic(small: CropSet, tmp_path: Path) -> None:
    _, made = adopted(Model(batch=1), small, tmp_path, wanted=ModelHints(dynamic=True))
    assert made.contract.max_batch is None


def test_a_batch_fixed_inside_the_graph_is_told_of(tmp_path: Path) -> None:
    path = Model(batch=2).save(tmp_path / "fixed.onnx")
    model = onnx.load(str(path))
    for item in model.graph.initializer:
        if item.name == "flat_shape":
            item.CopyFrom(numpy_helper.from_array(np.array([2, C, H * W]), item.name))
    onnx.save(model, str(path))
    assert read_foreign(path, ModelHints()).batch == 2
    with pytest.raises(RunnerError, match="leave `dynamic_batch` out"):
        read_foreign(path, ModelHints(dynamic=True))


def test_a_wrong_graph_leaves_no_file(
    small: CropSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference pixels that are not those of the graph: what a wrong --mean would be."""
    monkeypatch.setattr(
        Preprocessing, "apply", lambda self, images: images[..., ::-1].astype(np.float32)
    )
    with pytest.raises(ParityError, match="cosine to the FP32 network"):
        adopted(Model(), small, tmp_path)
    assert not (tmp_path / "adopted.onnx").exists()


def test_what_is_not_a_foreign_model_is_refused(tiny_onnx_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carries a contract already; see it with"):
        read_foreign(tiny_onnx_model, ModelHints())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07\x3a\x03abc")
    with pytest.raises(InputError, match=r"not a (whole .onnx file|valid ONNX model)"):
        read_foreign(broken, ModelHints())
    path = Model().save(tmp_path / "m.onnx")
    with pytest.raises(
        InputError, match=r"no tensor named 'x', expected one; choose with `output`"
    ):
        read_foreign(path, ModelHints(output="x"))
    model = onnx.load(str(path))
    model.graph.output.append(
        helper.make_tensor_value_info("relu", TensorProto.FLOAT, ["N", C, H, W])
    )
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"2 tensors, expected one; choose with `output` from"):
        read_foreign(path, ModelHints())
    assert read_foreign(path, ModelHints(output="features")).dim == C
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"not a valid ONNX model|expected FLOAT or FLOAT16"):
        read_foreign(path, ModelHints(output="features"))


def test_preprocessing_that_divides_by_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="expected numbers above 0"):
        Preprocessing(std=(0.0, 1.0, 1.0))
    with pytest.raises(InputError, match="colour='grey': expected rgb or bgr"):
        Preprocessing(colour="grey")  # type: ignore[arg-type]
