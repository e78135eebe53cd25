"""What an ONNX file says about itself before TensorRT reads it."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa_runtime.artefact.contract import Contract, Precision
from sa_runtime.artefact.external_data import check_weights, external_files
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import BuildError, InputError, bad_value
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto

ATTENTION_POOL = ("sa_deploy", "AttentionPool")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """An ONNX artefact.

    Attributes:
        path: of the file.
        contract: inside it.
        model: the graph; weights kept in other files are not read.
        files: the ONNX file, and the files its weights are kept in.
    """

    path: Path
    contract: Contract
    model: ModelProto
    files: tuple[Path, ...]

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file and of the files its weights are kept in."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @functools.cached_property
    def precision(self) -> Precision:
        """What the graph computes in: int8 with Q/DQ nodes, else the type of most weights."""
        if any(node.op_type in _QUANTIZERS for node in self.model.graph.node):
            return "int8"
        from onnx import TensorProto

        kinds: dict[int, Precision] = {
            TensorProto.FLOAT: "fp32",
            TensorProto.FLOAT16: "fp16",
            TensorProto.BFLOAT16: "bf16",
        }
        weights: Counter[Precision] = Counter()
        for tensor in self.model.graph.initializer:
            if tensor.data_type in kinds:
                size = 1
                for length in tensor.dims:
                    size *= length
                weights[kinds[tensor.data_type]] += size
        return weights.most_common(1)[0][0] if weights else "fp32"

    @functools.cached_property
    def attention_pools(self) -> int:
        """How many AttentionPool nodes it has."""
        return sum((node.domain, node.op_type) == ATTENTION_POOL for node in self.model.graph.node)

    def node(self, index: int) -> tuple[str, str]:
        """Name and operator of the graph's node, empty where there is none of that index."""
        if not 0 <= index < len(self.model.graph.node):
            return "", ""
        node = self.model.graph.node[index]
        return node.name, node.op_type

    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the image input, ``None`` for the batch where it is dynamic."""
        spec = self.contract.input
        sizes = (spec.height, spec.width)
        tail = (*sizes, 3) if spec.layout == "nhwc" else (3, *sizes)
        return (self.contract.max_batch if self.contract.fixed_batch else None, *tail)


def read_graph(path: Path) -> OnnxGraph:
    """Read an ONNX artefact.

    Raises:
        InputError: no such file, no ONNX file, one that is broken, or one whose weights are missing
            or outside its folder.
        ContractError: it carries no readable contract, or has other weights than it was written
            with.
        MissingPackageError: onnx is not installed.
    """
    if path.suffix != ".onnx":
        raise InputError(
            f"{path}: expected an .onnx file; `sa-deploy export` writes one from weights"
        )
    contract = read_contract(path)
    check_weights(path)
    onnx = require("onnx", extra="gpu", purpose="building an engine")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's own, which its two implementations name differently
        raise InputError(f"{path}: not an ONNX model ({exc}); export it again") from exc
    files = (path, *external_files(path))
    return OnnxGraph(path=path, contract=contract, model=model, files=files)


def check_precision(graph: OnnxGraph, wanted: Precision | None) -> None:
    """Refuse a precision that the graph is not in.

    TensorRT takes the types of the graph: an FP16 engine comes from an FP16 graph, an int8 engine
    from Q/DQ nodes.

    Raises:
        InputError: another one was asked for.
        BuildError: its int8 quantisation is not symmetric, which TensorRT refuses or gets wrong.
    """
    if wanted is not None and wanted != graph.precision:
        raise bad_value(
            "precision",
            wanted,
            f"the graph is {graph.precision} and TensorRT computes what the graph says; export it: "
            f"`sa-deploy export WEIGHTS --onnx --precision {wanted}`",
            prefix=f"{graph.path}: ",
        )
    if graph.precision == "int8":
        _require_symmetric(graph)


def _require_symmetric(graph: OnnxGraph) -> None:
    from onnx import numpy_helper

    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    for node in graph.model.graph.node:
        if node.op_type not in _QUANTIZERS or len(node.input) < 3:
            continue
        tensor = constants.get(node.input[2])
        zero = None if tensor is None else numpy_helper.to_array(tensor)
        if zero is not None and (zero.dtype != np.int8 or zero.any()):
            raise BuildError(
                f"{graph.path}: node {node.name!r} ({node.op_type}) has a zero point of "
                f"{zero.dtype} {zero.ravel()[:1].tolist()[0]}, expected int8 0: TensorRT takes "
                "symmetric int8 only; quantise it again: `sa-deploy export WEIGHTS "
                "--onnx --precision int8 --int8-target tensorrt`"
            )
