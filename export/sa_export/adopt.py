"""ONNX files of others as artefacts: uint8 crops in, unit vectors out, a contract inside."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa_export.crop_set import CropSet
from sa_export.foreign import ForeignModel, Preprocessing, reference_vectors
from sa_export.onnx_graph import (
    OnnxWriter,
    add_constant,
    node_with_axis,
    rename_tensor,
    set_nodes,
    tensor_names,
)
from sa_export.openvino_workarounds import rewrite_trapped
from sa_export.parity import Gates, Parity, canary_of_crops, measure_parity, require_parity
from sa_runtime.artefact.canary import CANARY_KEY
from sa_runtime.artefact.contract import (
    METADATA_KEY,
    Contract,
    InputSpec,
    OutputSpec,
    Precision,
    space_id,
)
from sa_runtime.artefact.reference import REFERENCE_KEY, make_reference
from sa_runtime.runners.table import open_runner
from sa_runtime.system.files import atomic_path, refuse_inputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_PREFIX = "sa_deploy_"
_IMAGES = "images"
_EMBEDDINGS = "embeddings"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdoptedModel:
    """What was written.

    Attributes:
        path: the artefact.
        contract: as it stands inside.
        parity: of the artefact to the file it was made from.
        rewritten: nodes that OpenVINO would have computed wrongly.
    """

    path: Path
    contract: Contract
    parity: Parity
    rewritten: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": str(self.path),
            "rewritten_reductions": self.rewritten,
            "space": self.contract.space,
            "dim": self.contract.output.dim,
            "parity": self.parity.to_dict(),
        }


def adopt(
    foreign: ForeignModel,
    target: Path,
    preprocessing: Preprocessing,
    crops: CropSet,
    gates: Gates,
    *,
    embedding: str = "adopted",
) -> AdoptedModel:
    """Write a foreign model as an artefact and compare it with the original.

    Normalisation is put in front and scaling to unit length behind; reductions that OpenVINO
    computes wrongly are rewritten.

    Args:
        foreign: the original; it is not changed.
        target: the artefact.
        preprocessing: what the original expects.
        crops: to compare on, at the original's size.
        gates: what the artefact must keep.
        embedding: a name for its vectors.

    Raises:
        InputError: the target is the original.
        ParityError: the artefact disagrees with the original; nothing is left.
    """
    refuse_inputs(target, [foreign.path])
    reference = reference_vectors(foreign, crops.images, preprocessing)
    contract = contract_of_foreign(foreign, preprocessing, embedding)
    model = type(foreign.model).FromString(foreign.model.SerializeToString())
    rewritten = rewrite_trapped(model)
    wrap(model, foreign, preprocessing)
    write = OnnxWriter(model)
    with atomic_path(target) as temporary:
        write({METADATA_KEY: contract.to_json()}, temporary)
        with open_runner(temporary, "onnxruntime") as runner:
            parity = measure_parity(
                runner.run, reference, crops, runtime="onnxruntime", largest=foreign.batch or 16
            )
            canary = canary_of_crops(crops, runner)
        require_parity(parity, gates, name=str(target))
        contract = dataclasses.replace(contract, parity={embedding: parity.summary()})
        metadata = {METADATA_KEY: contract.to_json(), CANARY_KEY: canary}
        if known := make_reference(reference):
            metadata[REFERENCE_KEY] = known
        write(metadata, temporary)
    return AdoptedModel(path=target, contract=contract, parity=parity, rewritten=rewritten)


def contract_of_foreign(
    foreign: ForeignModel, preprocessing: Preprocessing, embedding: str
) -> Contract:
    """The contract of an adopted model, without parity."""
    digest = hashlib.sha256()
    for item in sorted(foreign.model.graph.initializer, key=lambda item: item.name):
        digest.update(item.name.encode() + item.SerializeToString())
    weights = digest.hexdigest()
    operators = {node.op_type for node in foreign.model.graph.node}
    precision: Precision = "fp16" if foreign.half else "fp32"
    if operators & {"QuantizeLinear", "QLinearConv", "ConvInteger"}:
        precision = "int8"
    said = dataclasses.asdict(preprocessing)
    # The same weights that see other pixels span another space.
    seen = f"{weights}@{foreign.height}x{foreign.width}/{sorted(said.items())}"
    return Contract(
        input=InputSpec(height=foreign.height, width=foreign.width),
        output=OutputSpec(embedding=embedding, dim=foreign.dim),
        # As JSON gives it back, which knows no tuples.
        network=json.loads(json.dumps({"adopted_from": foreign.path.name, "preprocessing": said})),
        weights_sha256=weights,
        space=space_id(seen, embedding),
        precision=precision,
        max_batch=foreign.batch,
        fixed_batch=foreign.batch is not None,
        producer=f"sa-deploy {version('sa-deploy')}",
    )


def wrap(model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing) -> None:
    """Put normalisation before and scaling to unit length behind a model, in place."""
    from onnx import TensorProto, helper

    image, output = foreign.image, foreign.output
    for name in {_IMAGES, _EMBEDDINGS} & tensor_names(model):
        rename_tensor(model, name, f"{_PREFIX}original_{name}")
        image = f"{_PREFIX}original_{name}" if image == name else image
        output = f"{_PREFIX}original_{name}" if output == name else output
    before = _before(model, foreign, preprocessing, image)
    after = _after(model, output)
    kept = [value for value in model.graph.input if value.name != image]
    batch = foreign.batch or "N"
    size = [batch, foreign.height, foreign.width, 3]
    del model.graph.input[:]
    model.graph.input.extend(
        [helper.make_tensor_value_info(_IMAGES, TensorProto.UINT8, size), *kept]
    )
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(_EMBEDDINGS, TensorProto.FLOAT, [batch, foreign.dim])
    )
    set_nodes(model, [*before, *model.graph.node, *after])


def _before(
    model: ModelProto, foreign: ForeignModel, preprocessing: Preprocessing, image: str
) -> list[NodeProto]:
    """uint8 NHWC BGR -> the tensor ``image``."""
    from onnx import TensorProto, helper

    mean = np.array(preprocessing.mean) * preprocessing.divisor
    scale = 1 / (np.array(preprocessing.std) * preprocessing.divisor)
    kind = TensorProto.FLOAT16 if foreign.half else TensorProto.FLOAT
    # Cast first: it is the one operation that TensorRT does on uint8.
    steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("Cast", (), {"to": TensorProto.FLOAT})
    ]
    if preprocessing.colour == "rgb":
        order = add_constant(model, f"{_PREFIX}order", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", (order,), {"axis": 3}))
    steps += [
        ("Sub", (add_constant(model, f"{_PREFIX}mean", mean.astype(np.float32)),), {}),
        ("Mul", (add_constant(model, f"{_PREFIX}scale", scale.astype(np.float32)),), {}),
    ]
    if foreign.layout == "nchw":
        steps.append(("Transpose", (), {"perm": [0, 3, 1, 2]}))
    steps.append(("Cast", (), {"to": kind}))
    nodes, source = [], _IMAGES
    for index, (op_type, constants, attributes) in enumerate(steps):
        target = image if index == len(steps) - 1 else f"{_PREFIX}pixels_{index}"
        nodes.append(helper.make_node(op_type, [source, *constants], [target], **attributes))
        source = target
    return nodes


def _after(model: ModelProto, output: str) -> list[NodeProto]:
    """The tensor ``output`` -> (N, D) float32 rows of unit length."""
    from onnx import TensorProto, helper

    flat, wide, length, bounded = (
        f"{_PREFIX}{name}" for name in ("flat", "wide", "length", "bounded")
    )
    least = add_constant(model, f"{_PREFIX}least", np.array(1e-12, np.float32))
    return [
        helper.make_node("Flatten", [output], [flat], axis=1),
        helper.make_node("Cast", [flat], [wide], to=TensorProto.FLOAT),
        node_with_axis(model, "ReduceL2", wide, length, 1, keepdims=1),
        helper.make_node("Max", [length, least], [bounded]),
        helper.make_node("Div", [wide, bounded], [_EMBEDDINGS]),
    ]
