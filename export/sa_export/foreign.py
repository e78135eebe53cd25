"""What a foreign ONNX model takes and gives, found out by looking and by running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.contract import ColourOrder
from sa_runtime.artefact.external_data import external_files
from sa_runtime.artefact.metadata import contract_text
from sa_runtime.errors import InputError, RunnerError, bad_value, check_fields
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a foreign model expects to be done to its crops.

    Attributes:
        colour: order of its channels.
        divisor: what pixels of 0..255 are divided by before ``mean`` and ``std``.
        mean, std: of the divided pixels, in the order of ``colour``.
    """

    colour: ColourOrder = "rgb"
    divisor: float = 255.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.colour not in ("rgb", "bgr"):
            raise bad_value("colour", self.colour, "expected rgb or bgr")
        check_fields(
            self,
            [
                ("divisor", self.divisor > 0, "a number above 0"),
                ("std", min(self.std) > 0, "numbers above 0"),
            ],
        )

    def apply(self, images: Images) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 BGR -> (N, H, W, 3) float32 as the model wants its pixels."""
        pixels = images[..., ::-1] if self.colour == "rgb" else images
        scaled = pixels.astype(np.float64) / self.divisor
        return np.asarray((scaled - np.array(self.mean)) / np.array(self.std), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelHints:
    """What the user says of a model, where it does not say it itself.

    Attributes:
        height, width: of its input in pixels.
        image: name of the input.
        output: name of the embedding.
        dynamic: make a fixed batch axis dynamic.
    """

    height: int | None = None
    width: int | None = None
    image: str | None = None
    output: str | None = None
    dynamic: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """A foreign model and what was found out about it.

    Attributes:
        path: its file.
        model: loaded.
        image: name of the image input.
        layout: of its axes.
        height, width: of the input in pixels.
        half: whether the input is FP16.
        batch: where it is fixed.
        output: name of the embedding.
        dim: of the embedding.
    """

    path: Path
    model: ModelProto
    image: str
    layout: Literal["nchw", "nhwc"]
    height: int
    width: int
    half: bool
    batch: int | None
    output: str
    dim: int


def read_foreign(path: Path, wanted: ModelHints) -> ForeignModel:
    """Load a foreign ONNX file and find its image input and its embedding.

    Raises:
        InputError: not an ONNX file, it carries a contract already, or what is sought is not there
            or not unique; the message lists what is.
        RunnerError: ONNX Runtime cannot run it.
    """
    onnx = require("onnx", extra="cpu", purpose="sa-deploy adopt")
    if path.suffix != ".onnx":
        raise InputError(f"{path}: expected an .onnx file")
    external_files(path)  # refused with our words, where they are outside the model's folder
    if contract_text(path) is not None:
        raise InputError(f"{path}: carries a contract already; see it with `sa-deploy inspect`")
    try:
        model: ModelProto = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf's and the checker's errors share no base
        raise InputError(f"{path}: not a valid ONNX model: {exc}") from exc
    weights = {item.name for item in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    value = _the_one(inputs, wanted.image, path, "image")
    output = _the_one(list(model.graph.output), wanted.output, path, "output")
    kinds = {onnx.TensorProto.FLOAT: False, onnx.TensorProto.FLOAT16: True}
    kind, shape = value.type.tensor_type.elem_type, _shape(value)
    if kind not in kinds or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InputError(
            f"{path}: input {value.name!r} is {onnx.TensorProto.DataType.Name(kind)} {shape}, "
            "expected FLOAT or FLOAT16 images (N, 3, H, W) or (N, H, W, 3); name another one with "
            "`image=NAME`"
        )
    layout: Literal["nchw", "nhwc"] = "nchw" if shape[1] == 3 else "nhwc"
    rows, columns = shape[2:] if layout == "nchw" else shape[1:3]
    if wanted.dynamic:
        for tensor in (value, *model.graph.output):
            tensor.type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.value_info[:]
    found = ForeignModel(
        path=path,
        model=model,
        image=value.name,
        layout=layout,
        height=_size(rows, wanted.height, path, "height"),
        width=_size(columns, wanted.width, path, "width"),
        half=kinds[kind],
        batch=None if wanted.dynamic else shape[0],
        output=output.name,
        dim=0,
    )
    black = np.zeros((found.batch or 1, found.height, found.width, 3), np.float32)
    return dataclasses.replace(found, dim=runnable(found)(black).shape[1])


def runnable(foreign: ForeignModel) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The original as a function: (N, H, W, 3) float32 -> (N, D) float32, of any length."""
    ort = require("onnxruntime", extra="cpu", purpose="sa-deploy adopt")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(foreign.model.SerializeToString(), options)
    except Exception as exc:  # ORT's errors share no base
        raise RunnerError(f"{foreign.path}: ONNX Runtime cannot load it: {exc}") from exc

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        fed = pixels if foreign.layout == "nhwc" else pixels.transpose(0, 3, 1, 2)
        fed = np.ascontiguousarray(fed, np.float16 if foreign.half else np.float32)
        try:
            result = session.run([foreign.output], {foreign.image: fed})[0]
        except Exception as exc:
            raise RunnerError(
                f"{foreign.path}: ONNX Runtime fails on a batch of {len(pixels)}: {exc}. Where "
                "the batch is fixed inside the graph, leave `dynamic_batch` out"
            ) from exc
        return np.asarray(result, np.float32).reshape(len(pixels), -1)

    return run


def reference_vectors(
    foreign: ForeignModel, images: Images, preprocessing: Preprocessing
) -> Embeddings:
    """The original's vectors of some crops, preprocessed and made unit length by NumPy.

    Crops are given one at a time, or in batches of the fixed size, the last one filled up.
    """
    run = runnable(foreign)
    step = foreign.batch or 1
    parts = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        filled = np.concatenate([batch, np.repeat(batch[-1:], step - len(batch), axis=0)])
        parts.append(run(preprocessing.apply(filled))[: len(batch)])
    vectors = np.concatenate(parts).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _shape(value: ValueInfoProto) -> list[int | None]:
    dims: Sequence[Any] = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _the_one(
    values: list[ValueInfoProto], name: str | None, path: Path, parameter: str
) -> ValueInfoProto:
    """The value of a name, or the only one."""
    found = [value for value in values if name is None or value.name == name]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{value.name} {_shape(value)}" for value in values) or "none"
    came = f"{len(found)} tensors" if name is None else f"no tensor named {name!r}"
    raise InputError(f"{path}: {came}, expected one; choose with `{parameter}` from: {listed}")


def _size(found: int | None, given: int | None, path: Path, parameter: str) -> int:
    if found is not None and given is not None and found != given:
        raise InputError(
            f"{path}: `{parameter}={given}`, but the graph takes {found}; leave it out"
        )
    size = found or given
    if size is None:
        raise InputError(f"{path}: the graph leaves the size of its input open; give `{parameter}`")
    return size
