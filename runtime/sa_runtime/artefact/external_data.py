"""Weights that a model keeps in other files: found beside it, and known by their hashes.

ONNX lets a tensor name a file ("external data") that holds its bytes. Such a file is looked for in
the model's own folder, whatever the working directory is, and never outside it; that is so for
every runtime, because each opens a model through :func:`check_weights`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from sa_runtime.artefact.metadata import metadata_text
from sa_runtime.artefact.protobuf import fields, opened, varint
from sa_runtime.errors import ContractError, InputError

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTS_KEY = "sa_deploy.weights"
"""Metadata of an ONNX file: JSON of tensor name -> :func:`tensor_hash` of its bytes; of an OpenVINO
IR: of :data:`IR_WEIGHTS` -> :func:`file_hash` of the ``.bin``."""
IR_WEIGHTS = ".bin"
_EXTERNAL = 1  # TensorProto.DataLocation
# Field numbers of the messages that hold tensors, by the message that a field holds.
_HOLDERS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"
    },
    "sparse": {1: "tensor", 2: "tensor"},
}  # fmt: skip
_NAME, _ENTRY, _WHERE = 8, 13, 14  # of TensorProto


class External(NamedTuple):
    """A tensor whose bytes lie in another file; ``size`` is ``None`` up to the end of the file."""

    name: str
    location: str
    offset: int
    size: int | None


def external_tensors(path: Path) -> list[External]:
    """The tensors of an ONNX file whose bytes lie elsewhere.

    Raises:
        InputError: not a whole ONNX file.
    """
    try:
        with opened(path) as data:
            return _found(data)
    except (EOFError, UnicodeDecodeError, ValueError) as exc:
        raise InputError(
            f"{path}: not a whole .onnx file ({exc}); copy it again or export the model again"
        ) from exc


def external_files(path: Path) -> list[Path]:
    """The files in which an ONNX file keeps weights, in the order of their names.

    Raises:
        InputError: not a whole ONNX file, or a location that :func:`weights_file` refuses.
    """
    tensors = external_tensors(path)
    return [
        weights_file(path, next(t for t in tensors if t.location == location))
        for location in sorted({tensor.location for tensor in tensors})
    ]


def weights_file(path: Path, tensor: External) -> Path:
    """The file that holds the bytes of a tensor of an ONNX file.

    Raises:
        InputError: it is missing, or its location leaves the model's folder: an absolute path, one
            with ``..``, or a link that leads outside.
    """
    location = tensor.location
    mend = (
        "keep weights in the model's own folder, or store them inside the model: "
        "onnx.save(onnx.load(MODEL), MODEL)"
    )
    stated = f"{path}: tensor {tensor.name!r} has its weights in {location!r}"
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    if not location or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        raise InputError(f"{stated}, expected a path relative to the model's folder; {mend}")
    if ".." in parts:
        raise InputError(f"{stated}, which leaves the model's folder; {mend}")
    file = path.parent / location
    if not file.is_file():
        raise InputError(f"{stated}, and {file} is missing; copy it beside the model")
    # Download caches link a model and its weights to one folder of files: they are still together.
    homes = (path.parent.resolve(), path.resolve().parent)
    real = file.resolve()
    if not any(real.is_relative_to(home) for home in homes):
        raise InputError(f"{stated}, a link to {real}, which is outside the model's folder; {mend}")
    return file


def check_weights(path: Path) -> None:
    """Check the weights that an artefact keeps in other files; nothing to do where there are none.

    Where the file says which weights it was written with (:data:`WEIGHTS_KEY`), those beside it
    must be the same. Files of versions that did not say it open without.

    Raises:
        InputError: not a whole file, or weights that :func:`weights_file` refuses.
        ContractError: other weights than the file was written with.
    """
    if path.suffix == ".onnx":
        tensors = external_tensors(path)
        record = _record(path) if tensors else {}
        for tensor in tensors:
            content = external_bytes(path, tensor)
            if tensor.name in record and tensor_hash(content) != record[tensor.name]:
                raise _other_weights(path, f"the weights of {tensor.name!r} in {tensor.location!r}")
    beside = path.with_suffix(".bin")
    if path.suffix == ".xml" and beside.is_file():
        record = _record(path)
        if IR_WEIGHTS in record and file_hash(beside) != record[IR_WEIGHTS]:
            raise _other_weights(path, f"the weights in {beside.name!r}")


def _record(path: Path) -> dict[str, str]:
    text = metadata_text(path, WEIGHTS_KEY)
    try:
        return {} if text is None else dict(json.loads(text))
    except (ValueError, TypeError) as exc:
        raise ContractError(
            f"{path}: its record of weights ({WEIGHTS_KEY}) cannot be read ({exc}); export the "
            "model again"
        ) from exc


def _other_weights(path: Path, which: str) -> ContractError:
    return ContractError(
        f"{path}: {which} are not those the model was written with, so that its vectors would be "
        "of another feature space than its contract says; copy all of its files again, or export "
        "the model again"
    )


def external_bytes(path: Path, tensor: External) -> bytes:
    """The bytes of a tensor of an ONNX file that lie in another one.

    Raises:
        InputError: as :func:`weights_file`, or that file is too short.
    """
    file = weights_file(path, tensor)
    length = file.stat().st_size
    size = length - tensor.offset if tensor.size is None else tensor.size
    if not 0 <= tensor.offset <= tensor.offset + size <= length:
        raise InputError(
            f"{path}: tensor {tensor.name!r} is bytes {tensor.offset} to {tensor.offset + size} of "
            f"{file}, which has {length}; copy both files again"
        )
    with file.open("rb") as stream:
        stream.seek(tensor.offset)
        return stream.read(size)


def tensor_hash(content: bytes) -> str:
    """Hash of a tensor's bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """Likewise of a whole file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def weights_record(model: ModelProto) -> str:
    """What is stored under :data:`WEIGHTS_KEY`: the hash of every tensor that may be moved out."""
    tensors = model.graph.initializer
    return json.dumps({t.name: tensor_hash(t.raw_data) for t in tensors if t.raw_data})


def _found(data: mmap.mmap) -> list[External]:
    found: list[External] = []
    waiting = [("model", 0, len(data))]  # a list, not recursion: subgraphs may nest at will
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "tensor":
            found.extend(_external(data, start, end))
            continue
        holders = _HOLDERS[kind]
        for number, first, last in fields(data, start, end):
            if number in holders:
                waiting.append((holders[number], first, last))
    return found


def _external(data: mmap.mmap, start: int, end: int) -> list[External]:
    """The tensor, where its bytes lie elsewhere."""
    name, where, entries = "", 0, dict[str, str]()
    for number, first, last in fields(data, start, end):
        if number == _NAME:
            name = data[first:last].decode()
        elif number == _WHERE:
            where, _ = varint(data, first, last)
        elif number == _ENTRY:
            pair = {1: "", 2: ""}
            pair |= {n: data[a:b].decode() for n, a, b in fields(data, first, last)}
            entries[pair[1]] = pair[2]
    if where != _EXTERNAL:
        return []
    size = entries.get("length")
    return [
        External(
            name=name,
            location=entries.get("location", ""),
            offset=int(entries.get("offset") or 0),
            size=int(size) if size else None,
        )
    ]
