"""ONNX files without a contract as contenders: what a user had before the file was adopted.

A copy gets a contract that says what the graph says: float pixels, NCHW. They are scaled and turned
outside the graph, as every user of such a file does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from sa_runtime.artefact.formats import files_of
from sa_runtime.artefact.metadata import contract_text, read_contract
from sa_runtime.errors import InputError
from sa_runtime.system.extras import require

RAW = "raw"
"""Stands for the feature space of such a file, which nobody stated."""
_SIZE = (256, 128)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_METADATA_PROPS = 14


def contenders(models: Sequence[Path], folder: Path) -> list[Path]:
    """The models, each ONNX file without a contract as a copy that has one.

    Args:
        models: artefacts and others.
        folder: for the copies.

    Raises:
        InputError: a graph that does not take float images or gives several outputs.
    """
    raw = [model for model in models if _is_raw(model)]
    if not raw:
        return list(models)
    known = [model for model in models if model not in raw and model.suffix in (".onnx", ".xml")]
    size = _SIZE
    if known:
        spec = read_contract(known[0]).input
        size = spec.height, spec.width
    return [
        _copied(model, folder / str(number), size) if model in raw else model
        for number, model in enumerate(models)
    ]


def _is_raw(model: Path) -> bool:
    return model.suffix == ".onnx" and model.is_file() and contract_text(model) is None


def _copied(model: Path, folder: Path, size: tuple[int, int]) -> Path:
    contract = _contract(model, size)
    folder.mkdir()
    for file in files_of(model):
        target = folder / file.relative_to(model.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    copy = folder / model.name
    entry = _field(1, METADATA_KEY.encode()) + _field(2, contract.to_json().encode())
    with copy.open("ab") as end:  # fields of a message may follow one another in any order
        end.write(_field(_METADATA_PROPS, entry))
    return copy


def _contract(model: Path, size: tuple[int, int]) -> Contract:
    ort = require("onnxruntime", extra="cpu", purpose="measuring ONNX files without a contract")
    try:
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as exc:  # ORT's errors share no base
        raise InputError(f"{model}: ONNX Runtime cannot load it: {exc}") from exc
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape)
    fitting = len(inputs) == 1 and len(shape) == 4 and shape[1] == 3
    dims = list(outputs[0].shape)
    flat = len(outputs) == 1 and len(dims) == 2 and isinstance(dims[1], int)
    if not fitting or not flat or inputs[0].type != "tensor(float)":
        raise InputError(
            f"{model}: takes {inputs[0].type} {shape} and gives {dims}; without a contract only a "
            "graph from float (N, 3, H, W) to one (N, D) is measured; run `sa-deploy adopt` first"
        )
    height, width = (
        found if isinstance(found, int) else given
        for found, given in zip(shape[2:], size, strict=True)
    )
    batch = shape[0] if isinstance(shape[0], int) else None
    return Contract(
        input=InputSpec(
            name=inputs[0].name,
            layout="nchw",
            dtype="float32",
            colour="rgb",
            height=height,
            width=width,
            mean=_IMAGENET[0],
            std=_IMAGENET[1],
        ),
        output=OutputSpec(name=outputs[0].name, embedding=RAW, dim=dims[1]),
        weights_sha256=RAW,
        space=RAW,
        max_batch=batch,
        fixed_batch=batch is not None,
    )


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes as protocol buffers write it."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """A number of variable length.

    >>> _varint(300).hex()
    'ac02'
    """
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
