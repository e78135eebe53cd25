"""What a foreign file is and what ``adopt`` would make of it, before anything is written."""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_export.graph_flops import graph_flops
from sa_export.onnx_graph import opset_of
from sa_export.slips import KNOWN_CLASSES
from sa_runtime.artefact.external_data import external_files
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

_HEIGHT, _WIDTH = 256, 128
_SEEN_THROUGH = ("Identity", "Flatten", "Reshape", "Squeeze", "Cast", "Dropout")
"""Nodes that change no number."""
_PICKLE = b"\x80"

Row = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: of it.
        type: of its numbers.
        shape: with the batch; ``None`` where the graph leaves a size open.
        meaning: what it seems to be, for people.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]
    meaning: str = ""

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.type} ({sizes})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a foreign file is.

    Attributes:
        path: the file.
        kind: ``ONNX``, ``TorchScript`` or ``checkpoint``.
        what: the network, as far as it is known.
        size_bytes: of the file and those beside it.
        parameters: numbers in its weights.
        flops: operations of an image of ``height`` x ``width``, 0 where they are not known.
        height, width: of the crops; those of re-ID where the file leaves them open.
        inputs, outputs: of the graph; empty where only running it would tell.
        batch: a fixed size, or ``None``.
        opset: of ONNX's operators, 0 for others.
        operators: how often each stands in the graph.
        embedding: name of the output that is probably the embedding, empty where none is.
        adopt: the words of the command that would adopt it; empty where it could not.
        notes: what is worth knowing.
    """

    path: Path
    kind: str
    what: str = ""
    size_bytes: int
    parameters: int
    flops: int = 0
    height: int = _HEIGHT
    width: int = _WIDTH
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batch: int | None = None
    opset: int = 0
    operators: dict[str, int] = dataclasses.field(default_factory=dict)
    embedding: str = ""
    adopt: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def rows(self) -> list[Row]:
        """The same for people."""
        rows = [("kind", self.kind)]
        if self.what:
            rows.append(("network", self.what))
        rows += [
            ("size", f"{self.size_bytes / 1e6:.1f} MB"),
            ("parameters", f"{self.parameters:,}"),
        ]
        if self.flops:
            work = f"{self.flops / 1e9:.2f} GFLOP an image of {self.height}x{self.width}"
            rows.append(("work", work))
        if self.opset:
            rows.append(("opset", str(self.opset)))
            rows.append(("batch", "any" if self.batch is None else f"exactly {self.batch}"))
        rows += [(f"in: {tensor.name}", str(tensor)) for tensor in self.inputs]
        for tensor in self.outputs:
            chosen = "; probably the embedding" if tensor.name == self.embedding else ""
            rows.append((f"out: {tensor.name}", f"{tensor}, {tensor.meaning}{chosen}"))
        if self.operators:
            counted = [f"{count} {name}" for name, count in list(self.operators.items())[:12]]
            rows.append(("operators", ", ".join(counted)))
        rows += [("note", text) for text in self.notes]
        return rows


def look(path: Path) -> Look:
    """What a foreign ONNX file, TorchScript file or checkpoint is.

    Raises:
        InputError: no such file, none of these, or a broken one.
        MissingPackageError: what reads it is not installed.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected a model or a checkpoint", path=path)
    if path.suffix == ".onnx":
        return look_at_onnx(path)
    with path.open("rb") as file:
        begin = file.read(2)
    known = zipfile.is_zipfile(path) or begin[:1] == _PICKLE or path.suffix == ".safetensors"
    if not known:
        raise InputError(
            f"{path}: not an artefact, no TorchScript file and no checkpoint of torch; expected a "
            "file that ends in .onnx, .xml, .torchscript, .pt2, .engine, .pt, .pth or .safetensors"
        )
    module = require("sa_export.look_torch", extra="export", purpose="looking at checkpoints")
    found: Look = module.look_at_torch(path)
    return found


def look_at_onnx(path: Path) -> Look:
    """What an ONNX file is; it is not run."""
    onnx = require("onnx", extra="cpu", purpose="inspecting ONNX files")
    files = [path, *external_files(path)]
    try:
        model: ModelProto = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's errors share no base
        raise InputError(f"{path}: not a whole ONNX file ({exc}); copy it again") from exc
    if not model.graph.node:
        raise InputError(f"{path}: not a whole ONNX file (no nodes in it); copy it again")
    stored = {item.name for item in model.graph.initializer}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in stored]
    outputs = [_described(model, value) for value in model.graph.output]
    images = next((tensor for tensor in inputs if len(tensor.shape) == 4), None)
    height, width, flops, batch = _HEIGHT, _WIDTH, 0, None
    if images is not None:
        batch = images.shape[0]
        last = images.shape[1] == 3 or images.shape[3] != 3
        sides = images.shape[2:] if last else images.shape[1:3]
        height, width = (size or default for size, default in zip(sides, (256, 128), strict=True))
        shape = (batch or 1, 3, height, width) if last else (batch or 1, height, width, 3)
        flops = graph_flops(model, images.name, shape) // (batch or 1)
    embedding = _likely(outputs)
    return Look(
        path=path,
        kind="ONNX",
        what=model.producer_name and f"written by {model.producer_name} {model.producer_version}",
        size_bytes=sum(file.stat().st_size for file in files),
        parameters=sum(_count(item.dims) for item in model.graph.initializer),
        flops=flops,
        height=height,
        width=width,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        batch=batch,
        opset=opset_of(model),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        embedding=embedding,
        adopt=_words(path, images, outputs, embedding),
        notes=_notes(batch, images),
    )


def _notes(batch: int | None, images: Tensor | None) -> tuple[str, ...]:
    notes = []
    if batch is not None:
        notes.append(
            f"the batch is fixed at {batch}; `sa-deploy adopt --dynamic-batch` frees it, where the "
            "graph allows"
        )
    if images is None:
        notes.append("no input of four axes: it takes no images, so it cannot be adopted")
    elif images.type == "uint8":
        notes.append("it takes bytes: an artefact that lost its contract? export it again")
    return tuple(notes)


def _words(path: Path, images: Tensor | None, outputs: list[Tensor], embedding: str) -> str:
    if images is None or images.type not in ("float32", "float16"):
        return ""
    words = ["sa-deploy adopt", path.name, f"--out {path.stem}-adopted.onnx"]
    if None in images.shape[1:]:
        words.append(f"--height {_HEIGHT} --width {_WIDTH}")
    if len(outputs) > 1:
        words.append(f"--output {embedding or 'NAME'}")
    return " ".join([*words, "--preprocessing NAME"])


def _tensor(value: ValueInfoProto) -> Tensor:
    from onnx import TensorProto, helper

    kind = value.type.tensor_type
    name = TensorProto.DataType.Name(kind.elem_type).lower()
    if kind.elem_type not in (TensorProto.BFLOAT16, TensorProto.UNDEFINED):
        name = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return Tensor(name=value.name, type=name, shape=sizes)


def _described(model: ModelProto, value: ValueInfoProto) -> Tensor:
    tensor = _tensor(value)
    return dataclasses.replace(tensor, meaning=_meaning(model, tensor))


def _meaning(model: ModelProto, tensor: Tensor) -> str:
    """What an output seems to be, by the node that makes it and by how many numbers it has."""
    sizes = tensor.shape[1:]
    if len(sizes) > 1 and any(size not in (1, None) for size in sizes[1:]):
        return "a map"
    node = _maker(model, tensor.name)
    kind = "" if node is None else node.op_type
    count = sizes[0] if sizes else None
    if kind in ("Softmax", "LogSoftmax"):
        return "probabilities of classes"
    if kind in ("Gemm", "MatMul") and count in KNOWN_CLASSES:
        return f"logits: as many as {KNOWN_CLASSES[count]} has classes"
    if count in KNOWN_CLASSES:
        return f"a vector, or logits: as many numbers as {KNOWN_CLASSES[count]} has classes"
    texts = {
        "BatchNormalization": "a vector behind a batch norm",
        "LpNormalization": "a vector of unit length",
        "Div": "a vector, probably of unit length",
        "Relu": "a vector behind a ReLU",
        "Concat": "several vectors joined",
    }
    if kind in texts:
        return texts[kind]
    if kind.endswith("Pool") or kind.startswith("Reduce"):
        return "a vector behind the pooling"
    return "a vector"


def _maker(model: ModelProto, name: str) -> NodeProto | None:
    """The node that computes a tensor, those that change no number seen through."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(name)
    while node is not None and node.op_type in _SEEN_THROUGH and node.input[0] in makers:
        node = makers[node.input[0]]
    return node


def _likely(outputs: list[Tensor]) -> str:
    """The output that is most probably the embedding: a vector, behind the batch norm if any."""
    vectors = [t for t in outputs if t.meaning.startswith(("a vector", "several"))]
    sure = [t for t in vectors if "logits" not in t.meaning]
    behind = [t for t in sure if "batch norm" in t.meaning or "unit length" in t.meaning]
    found = behind or sure or vectors
    return found[0].name if found else ""


def _count(dims: Any) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count
