"""An artefact whose vectors are shorter: the projection becomes part of its graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa_export.onnx_graph import OnnxWriter, add_constant, node_with_axis, rename_tensor
from sa_runtime.artefact.canary import CANARY_KEY, canary_of, make_canary
from sa_runtime.artefact.contract import METADATA_KEY, Contract, require_same_space, space_id
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import ContractError, InputError, ParityError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.retrieval.compression import WHITENING, Projection, fit_projection
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.extras import require
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.locking import owned_path

if TYPE_CHECKING:
    from onnx import ModelProto

_PREFIX = "sa_deploy_compress_"
_LEAST_COSINE = 0.9999


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompressedModel:
    """What was written.

    Attributes:
        path: the artefact.
        contract: inside it.
        projection: what was put behind the network.
        fitted_on: vectors that it was fitted on.
    """

    path: Path
    contract: Contract
    projection: Projection
    fitted_on: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path),
            "space": self.contract.space,
            "dim": self.contract.output.dim,
            "dim_before": len(self.projection.mean),
            "variance_kept": self.projection.kept,
            "fitted_on": self.fitted_on,
        }


def compress_model(
    model: Path | str,
    fitted_on: StoredEmbeddings,
    out: Path | str,
    dim: int,
    *,
    whitening: float = WHITENING,
) -> CompressedModel:
    """Write an ONNX artefact that gives shorter vectors, and prove it on its canary crops.

    The components are fitted on stored embeddings of other people, and stand in the graph behind
    the old output: every runtime gives the short vectors, which are a feature space of their own.

    Args:
        model: an ONNX artefact that ``sa-deploy export`` or ``adopt`` wrote.
        fitted_on: embeddings that it gave, of more images than ``dim``.
        out: the ONNX file to write.
        dim: numbers in a vector.
        whitening: power of the deviation that a component is divided by, 0 to 1.

    Raises:
        InputError: another format, the model itself as ``out``, too few vectors, or ``dim``.
        ContractError: embeddings of another feature space, or a model without a contract.
        ParityError: the artefact does not give the projected vectors; nothing is left.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    source, target = Path(model), Path(out)
    for path in (source, target):
        if path.suffix.lower() != ".onnx":
            raise InputError(f"{path}: only ONNX artefacts are compressed; expected NAME.onnx")
    refuse_inputs(target, [source])
    onnx = require("onnx", extra="cpu", purpose="compressing a model")
    contract = read_contract(source)
    require_same_space(
        contract.space, fitted_on.contract.space, names=(str(source), "the embeddings")
    )
    projection = fit_projection(fitted_on.vectors, dim, whitening=whitening)
    graph: ModelProto = onnx.load(source)
    short = _contract(contract, projection)
    _project(graph, contract.output.name, projection)
    canary = canary_of(source)
    metadata = {METADATA_KEY: short.to_json()}
    if canary is not None:
        metadata[CANARY_KEY] = make_canary(canary.images, projection(canary.vectors))
    write = OnnxWriter(graph)
    with owned_path(target) as temporary:
        write(metadata, temporary)
        if canary is not None:
            _prove(temporary, canary.images, projection(canary.vectors), name=str(target))
    return CompressedModel(
        path=target, contract=short, projection=projection, fitted_on=len(fitted_on.vectors)
    )


def _contract(contract: Contract, projection: Projection) -> Contract:
    """That of the short vectors: a space of its own, which nothing was measured in."""
    embedding = f"{contract.output.embedding}-pca{projection.matrix.shape[1]}"
    output = dataclasses.replace(
        contract.output, embedding=embedding, dim=projection.matrix.shape[1]
    )
    return dataclasses.replace(
        contract,
        output=output,
        space=space_id(f"{contract.space}/{projection.sha256}", embedding),
        parity={},
    )


def _project(graph: ModelProto, output: str, projection: Projection) -> None:
    """Put the projection and scaling to unit length behind an output, in place."""
    from onnx import helper

    found = [value for value in graph.graph.output if value.name == output]
    if len(found) != 1:
        raise ContractError(f"its contract names the output {output!r}, which its graph has not")
    whole = f"{_PREFIX}whole"
    rename_tensor(graph, output, whole)
    (value,) = (value for value in graph.graph.output if value.name in (output, whole))
    value.name = output
    value.type.tensor_type.shape.dim[1].dim_value = projection.matrix.shape[1]
    mean, matrix = (
        add_constant(graph, f"{_PREFIX}{name}", np.ascontiguousarray(array))
        for name, array in (("mean", projection.mean), ("matrix", projection.matrix))
    )
    least = add_constant(graph, f"{_PREFIX}least", np.array(1e-12, np.float32))
    names = {name: f"{_PREFIX}{name}" for name in ("centred", "moved", "length", "bounded")}
    graph.graph.node.extend(
        [
            helper.make_node("Sub", [whole, mean], [names["centred"]]),
            helper.make_node("MatMul", [names["centred"], matrix], [names["moved"]]),
            node_with_axis(graph, "ReduceL2", names["moved"], names["length"], 1, keepdims=1),
            helper.make_node("Max", [names["length"], least], [names["bounded"]]),
            helper.make_node("Div", [names["moved"], names["bounded"]], [output]),
        ]
    )


def _prove(path: Path, images: Any, expected: Any, *, name: str) -> None:
    """Raise ParityError unless the artefact gives the projected vectors of its canary crops."""
    with open_runner(path, "onnxruntime") as runner:
        cosine = float((runner.run(images) * expected).sum(axis=1).min())
    if cosine < _LEAST_COSINE:
        raise ParityError(
            f"{name}: its vectors differ from the projected ones of the model (cosine "
            f"{cosine:.4f}, expected {_LEAST_COSINE}); export the model again"
        )
