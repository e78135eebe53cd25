"""Files without a contract as contenders of ``bench``: what a user had before it was adopted.

A copy gets a contract that says what the file says: float pixels, NCHW. They are scaled and turned
outside the graph, as every user of such a file does. Checkpoints are measured as TorchScript.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from sa_export.graph_flops import graph_flops
from sa_export.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from sa_runtime.artefact.contract import METADATA_KEY, RAW, Contract, InputSpec, OutputSpec
from sa_runtime.artefact.formats import ARTEFACTS, files_of
from sa_runtime.artefact.metadata import contract_text, read_contract
from sa_runtime.errors import InputError
from sa_runtime.system.extras import require

_SIZE = (256, 128)
_CHECKPOINTS = (".pt", ".pth", ".tar", ".safetensors")
_METADATA_PROPS = 14


def contenders(models: Sequence[Path], folder: Path) -> list[Path]:
    """The models, each that has no contract as a copy that has one.

    Args:
        models: artefacts and others.
        folder: for the copies.

    Raises:
        InputError: a graph that does not take float images or gives several outputs.
        CheckpointError: weights of a network that neither they nor an artefact beside them name.
        MissingPackageError: a checkpoint or TorchScript file, where torch is not installed.
    """
    known = [read_contract(model) for model in models if _carries(model)]
    size = (known[0].input.height, known[0].input.width) if known else _SIZE
    found = []
    for number, model in enumerate(models):
        raw = model.is_file() and not _carries(model)
        copy = folder / str(number)
        if raw and model.suffix == ".onnx":
            found.append(_copied(model, copy, size))
        elif raw and model.suffix in (".torchscript", *_CHECKPOINTS):
            module = require("sa_export.raw_torch", extra="export", purpose="raw checkpoints")
            found.append(module.contender(model, copy, size, known))
        else:
            found.append(model)
    return found


def _carries(model: Path) -> bool:
    """Whether a file has a contract."""
    return model.suffix in ARTEFACTS and model.is_file() and contract_text(model) is not None


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
    onnx = require("onnx", extra="cpu", purpose="counting operations")
    count = batch or 1
    flops = graph_flops(
        onnx.load(str(model), load_external_data=False),
        inputs[0].name,
        (count, 3, height, width),
    )
    return raw_contract(
        InputSpec(name=inputs[0].name, height=height, width=width),
        OutputSpec(name=outputs[0].name, embedding=RAW, dim=dims[1]),
        flops=flops // count,
        batch=batch,
    )


def raw_contract(
    images: InputSpec, output: OutputSpec, *, flops: int, batch: int | None = None
) -> Contract:
    """The contract of a file that takes float pixels and promises nothing.

    Args:
        images: name and size of its input.
        output: its vectors.
        flops: of an image.
        batch: where it is fixed.
    """
    pixels = dataclasses.replace(
        images, layout="nchw", dtype="float32", colour="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Contract(
        input=pixels,
        output=output,
        weights_sha256=RAW,
        space=RAW,
        max_batch=batch,
        fixed_batch=batch is not None,
        flops=flops,
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
