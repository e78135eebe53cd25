"""What an artefact is, read from the file alone: for ``sa-deploy inspect``."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sa_runtime.artefact.contract import Contract, tensor_fault
from sa_runtime.artefact.formats import ARTEFACTS, FORMATS, files_of
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import ContractError, InputError, MissingFileError, MissingPackageError
from sa_runtime.runners.table import runtimes_for
from sa_runtime.system.extras import require

Shape = tuple[int | None, ...]
"""Without the batch; ``None`` where the graph leaves a size open."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """What the graph of a file says, whatever its contract says.

    Attributes:
        operators: how often each stands in it.
        tensors: type and shape of its inputs and outputs by name; empty where the format does not
            keep them.
        weights: numbers of each type, empty where the format does not keep them apart.
    """

    operators: dict[str, int]
    tensors: dict[str, tuple[str, Shape]]
    weights: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What an artefact is.

    Attributes:
        path: the file.
        format: in words.
        size_bytes: with the weights beside it.
        contract: as it stands inside.
        graph: as it stands inside; ``None`` for engines.
        runtimes: names of those that open it, the fastest first.
        engine: what the sidecar of an engine says beside the contract, else empty.
    """

    path: Path
    format: str
    size_bytes: int
    contract: Contract
    graph: GraphSummary | None
    runtimes: tuple[str, ...]
    engine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        graph = None
        if self.graph is not None:
            graph = {
                "operators": self.graph.operators,
                "weights": self.graph.weights,
                "tensors": {
                    name: {"type": kind, "shape": list(shape)}
                    for name, (kind, shape) in self.graph.tensors.items()
                },
            }
        return {
            "file": str(self.path),
            "format": self.format,
            "size_bytes": self.size_bytes,
            "runtimes": list(self.runtimes),
            "contract": json.loads(self.contract.to_json()),
            "graph": graph,
            "engine": self.engine,
        }


def describe(path: Path) -> Description:
    """Read an artefact and check that its graph is what its contract says.

    Args:
        path: an ONNX, OpenVINO, TorchScript or torch.export file, or a TensorRT engine.

    Raises:
        InputError: no such file, or none of these.
        ContractError: no contract, a changed one, or a graph of other inputs and outputs; the
            message says what differs.
        MissingPackageError: an ONNX file, and onnx is not installed.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; expected a model that `sa-deploy export` wrote", path=path
        )
    if path.suffix not in ARTEFACTS:
        raise InputError(
            f"{path}: not an artefact; expected a file that ends in {', '.join(ARTEFACTS)}"
        )
    contract = read_contract(path)
    graph = _graph(path)
    if graph is not None and (differing := differences(contract, graph)):
        raise ContractError(
            f"{path}: its graph is not what its contract says: {'; '.join(differing)}. The file "
            "was changed after export, export it again"
        )
    engine: dict[str, Any] = {}
    if path.suffix == ".engine":
        from sa_runtime.tensorrt.sidecar import read_sidecar

        engine = json.loads(read_sidecar(path).to_json())
        del engine["contract"]
    return Description(
        path=path,
        format=FORMATS[path.suffix].title,
        size_bytes=sum(file.stat().st_size for file in files_of(path)),
        contract=contract,
        graph=graph,
        runtimes=runtimes_for(path),
        engine=engine,
    )


def quantization_rows(contract: Contract) -> list[tuple[str, str]]:
    """How many layers of an int8 artefact are in int8, and why the others are not, for people."""
    said = contract.quantization
    if not said:
        return []
    kept: dict[str, dict[str, float]] = said["kept"]
    rows = [
        (
            "layers in int8",
            f"{said['layers'] - len(kept)} of {said['layers']} convolutions (all of them: "
            f"{said['map_drop_all_quantised']:+.2f} points of mAP lost)",
        )
    ]
    return rows + [
        (
            f"in float: {layer}",
            f"alone in int8 it costs {cost['map_drop_alone']:+.2f} points of mAP",
        )
        for layer, cost in kept.items()
    ]


def _graph(path: Path) -> GraphSummary | None:
    if path.suffix not in _GRAPHS:
        return None
    try:
        return _GRAPHS[path.suffix](path)
    except MissingPackageError:
        raise
    except Exception as exc:  # protobuf, zip, XML and JSON: their errors share no base
        raise InputError(
            f"{path}: not a whole {FORMATS[path.suffix].title} file ({exc or type(exc).__name__}); "
            "copy it again or export the model again"
        ) from exc


def differences(contract: Contract, graph: GraphSummary) -> list[str]:
    """What a graph's inputs and outputs differ from its contract in, as sentences.

    >>> from sa_runtime.artefact.contract import InputSpec, OutputSpec
    >>> contract = Contract(input=InputSpec(height=8, width=4), output=OutputSpec(dim=2),
    ...                     weights_sha256="0", space="s")
    >>> tensors = {"images": ("uint8", (8, 4, 3)), "embeddings": ("float32", (3,))}
    >>> differences(contract, GraphSummary(operators={}, tensors=tensors, weights={}))
    ['embeddings is float32 (N, 3), the contract says float32 (N, 2)']
    """
    if not graph.tensors:
        return []
    stated = contract.tensors()
    faults = {
        name: tensor_fault(tensor, graph.tensors.get(name)) for name, tensor in stated.items()
    }
    found = [f"{name} {fault}" for name, fault in faults.items() if fault]
    return found + [
        f"{name} is not in the contract" for name in graph.tensors if name not in stated
    ]


def _onnx_graph(path: Path) -> GraphSummary:
    onnx = require("onnx", extra="cpu", purpose="inspecting ONNX files")
    model = onnx.load(str(path), load_external_data=False)
    names = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in (1, 2, 3, 6, 7, 10)}
    names[onnx.TensorProto.BFLOAT16] = "bfloat16"
    tensors = {}
    stored = {item.name for item in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in stored:
            continue
        kind = value.type.tensor_type
        dims = [dim.dim_value or None for dim in kind.shape.dim]
        tensors[value.name] = (names.get(kind.elem_type, str(kind.elem_type)), tuple(dims[1:]))
    weights: Counter[str] = Counter()
    for item in model.graph.initializer:
        count = 1
        for dim in item.dims:
            count *= dim
        weights[names.get(item.data_type, str(item.data_type))] += count
    return GraphSummary(
        operators=_counted(node.op_type for node in model.graph.node),
        tensors=tensors,
        weights=dict(weights.most_common()),
    )


_IR_TYPES = {
    "u8": "uint8", "i8": "int8", "f16": "float16", "bf16": "bfloat16", "f32": "float32",
    "i32": "int32", "i64": "int64",
}  # fmt: skip
_IR_PORTS = {"U8": "uint8", "FP32": "float32", "FP16": "float16"}


def _openvino_graph(path: Path) -> GraphSummary:
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    tensors: dict[str, tuple[str, Shape]] = {}
    for layer in ElementTree.parse(path).getroot().iterfind("layers/layer"):
        kind = layer.get("type", "")
        data = layer.find("data")
        if kind == "Const" and data is not None:
            count = 1
            for dim in filter(None, data.get("shape", "").split(",")):
                count *= int(dim)
            element = data.get("element_type", "")
            weights[_IR_TYPES.get(element, element)] += count
        elif kind in ("Parameter", "Result"):
            port = layer.find("output/port" if kind == "Parameter" else "input/port")
            if port is not None:
                sizes = [int(dim.text or -1) for dim in port.iterfind("dim")]
                shape = tuple(None if size < 0 else size for size in sizes[1:])
                precision = port.get("precision", "")
                element = _IR_PORTS.get(precision, precision)
                for name in _port_names(layer, port):
                    tensors[name] = (element, shape)
        else:
            operators[kind] += 1
    return GraphSummary(
        operators=dict(operators.most_common()),
        tensors=tensors,
        weights=dict(weights.most_common()),
    )


def _port_names(layer: ElementTree.Element, port: ElementTree.Element) -> list[str]:
    names = port.get("names") or layer.get("output_names") or layer.get("name") or ""
    return [name.split("/sink_port")[0] for name in names.split(",") if name]


def _torchscript_graph(path: Path) -> GraphSummary:
    """Operators by the calls in the archive's code."""
    with zipfile.ZipFile(path) as archive:
        code = "".join(
            archive.read(name).decode()
            for name in archive.namelist()
            if "/code/" in name and name.endswith(".py")
        )
    return GraphSummary(
        operators=_counted(re.findall(r"\btorch\.(\w+)\(", code)), tensors={}, weights={}
    )


def _torch_export_graph(path: Path) -> GraphSummary:
    """Operators by the nodes of the archive's program."""
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/models/model.json"))
        program = json.loads(archive.read(name))
    nodes = program["graph_module"]["graph"]["nodes"]
    targets = (re.sub(r"^torch\.ops\.aten\.", "", node["target"]) for node in nodes)
    return GraphSummary(
        operators=_counted(target.split(".")[0] for target in targets), tensors={}, weights={}
    )


def _counted(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())


_GRAPHS: dict[str, Callable[[Path], GraphSummary]] = {
    ".onnx": _onnx_graph,
    ".xml": _openvino_graph,
    ".torchscript": _torchscript_graph,
    ".pt2": _torch_export_graph,
}
