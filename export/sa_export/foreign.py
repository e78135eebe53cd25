"""What a foreign ONNX model takes and gives, found out by looking and by running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sa_export.preprocessing import Preprocessing
from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.external_data import external_files
from sa_runtime.artefact.formats import ARTEFACTS, FORMATS
from sa_runtime.artefact.metadata import contract_text
from sa_runtime.errors import InputError, MissingFileError, RunnerError, bad_value
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from sa_export.families.base import Network

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_ADOPTED = "{path}: carries a contract already; see it with `sa-deploy inspect`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelHints:
    """What the user says of a model, where it does not say it itself.

    Attributes:
        height, width: of its input in pixels.
        image: name of the input.
        output: name of the embedding.
        dynamic: make a fixed batch axis dynamic.
        arch, factory, last_stride: of a checkpoint's network, see
            :func:`sa_export.families.table.network_of`.
    """

    height: int | None = None
    width: int | None = None
    image: str | None = None
    output: str | None = None
    dynamic: bool = False
    arch: str | None = None
    factory: str | None = None
    last_stride: int | None = None


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
        network: what was found out about a checkpoint; ``None`` for ONNX.
        original: runs it where that is not ONNX Runtime: (N, H, W, 3) float32 as the model wants
            its pixels -> (N, D).
        weights: hash of a checkpoint's weights; empty for ONNX, whose graph has them.
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
    network: Network | None = None
    original: Run | None = None
    weights: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input, for one image where the batch is free."""
        count = self.batch or 1
        if self.layout == "nchw":
            return count, 3, self.height, self.width
        return count, self.height, self.width, 3

    @property
    def source(self) -> str:
        """What it is, for people."""
        if self.network is None:
            return "ONNX"
        return f"{self.network.arch} of {self.network.family}"


def read_foreign(path: Path, wanted: ModelHints) -> ForeignModel:
    """Load a foreign model and find its image input and its embedding.

    Args:
        path: an ONNX file, a TorchScript file or a checkpoint.
        wanted: what the user says of it.

    Raises:
        InputError: no such model, hints that do not fit it, or nothing in it that is sought.
        RunnerError: it cannot be run.
        MissingPackageError: what loads it is not installed.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; expected an ONNX or TorchScript file, or a checkpoint",
            path=path,
        )
    if path.suffix == ".onnx":
        _refuse_for_onnx(wanted)
        return read_onnx(path, wanted)
    if path.suffix in ARTEFACTS and path.suffix != ".torchscript":
        raise InputError(
            f"{path}: {FORMATS[path.suffix].title} is what is made of a model, expected an ONNX "
            "or TorchScript file, or a checkpoint"
        )
    if path.suffix == ".torchscript" and contract_text(path) is not None:
        raise InputError(_ADOPTED.format(path=path))
    read = require("sa_export.foreign_torch", extra="export", purpose="reading checkpoints")
    found: ForeignModel = read.read_torch(path, wanted)
    return found


def _refuse_for_onnx(wanted: ModelHints) -> None:
    for name in ("arch", "factory", "last_stride"):
        if (value := getattr(wanted, name)) is not None:
            raise bad_value(name, value, "an ONNX file holds its network; leave it out")


def read_onnx(path: Path, wanted: ModelHints) -> ForeignModel:
    """Load a foreign ONNX file and find its image input and its embedding.

    Raises:
        InputError: not an ONNX file, it carries a contract already, or what is sought is not there
            or not unique; the message lists what is.
        RunnerError: ONNX Runtime cannot run it.
    """
    onnx = require("onnx", extra="cpu", purpose="sa-deploy adopt")
    external_files(path)  # refused with our words, where they are outside the model's folder
    if contract_text(path) is not None:
        raise InputError(_ADOPTED.format(path=path))
    try:
        model: ModelProto = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf's and the checker's errors share no base
        raise InputError(f"{path}: not a valid ONNX model: {exc}") from exc
    weights = {item.name for item in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    value = _the_one(inputs, wanted.image, path, "image")
    output = _the_one(list(model.graph.output), wanted.output, path, "output")
    refuse_map(path, _shape(output))
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


def refuse_map(path: Path, shape: Sequence[int | None]) -> None:
    """Raise InputError where an output is a map, not a vector for each image."""
    sides = [size for size in shape[2:] if size not in (1, None)]
    if len(shape) > 2 and sides:
        raise bad_value(
            "output",
            "x".join(map(str, shape[1:])),
            f"{path} gives a map of that size for each image, expected a vector (N, D); choose "
            "the output behind the pooling",
        )


def runnable(foreign: ForeignModel) -> Run:
    """The original as a function: (N, H, W, 3) float32 -> (N, D) float32, of any length."""
    if foreign.original is not None:
        return foreign.original
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
