"""Reading the contract of an artefact of any format, without the packages that run it."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.artefact.formats import ARTEFACTS, FORMATS
from sa_runtime.artefact.protobuf import fields, opened
from sa_runtime.errors import ContractError, InputError, MissingFileError

_METADATA_PROPS = 14
"""Field of ONNX's ModelProto; its entries hold a key in field 1 and a value in field 2."""


def contract_text(path: Path) -> str | None:
    """The JSON of an artefact's contract, ``None`` where it carries none.

    Raises:
        InputError: as :func:`metadata_text`.
    """
    return metadata_text(path, METADATA_KEY)


def metadata_text(path: Path, key: str) -> str | None:
    """What an artefact carries under a key, ``None`` where that is nothing.

    Args:
        path: an ``.onnx``, ``.torchscript``, ``.pt2`` or ``.xml`` (OpenVINO) file, or an
            ``.engine`` with its sidecar.
        key: such as :data:`sa_runtime.artefact.contract.METADATA_KEY`; in OpenVINO's ``rt_info``
            its words between the dots are the path.

    Raises:
        InputError: no such file, another suffix, or a file that is broken.
    """
    if not path.is_file():
        there = "a folder" if path.is_dir() else "no such file"
        raise MissingFileError(
            f"{path}: {there}; expected a model that `sa-deploy export` wrote", path=path
        )
    if path.suffix not in ARTEFACTS:
        raise InputError(
            f"{path}: no artefact of this project ends in {path.suffix or 'nothing'!r}; "
            f"expected {', '.join(ARTEFACTS)}"
        )
    try:
        return _reader(FORMATS[path.suffix].metadata)(path, key)
    except (EOFError, UnicodeDecodeError, zipfile.BadZipFile, ElementTree.ParseError) as exc:
        raise InputError(
            f"{path}: not a whole {path.suffix} file ({exc or type(exc).__name__}); "
            "copy it again or export the model again"
        ) from exc


def _reader(entry: str) -> Callable[[Path, str], str | None]:
    module, _, function = entry.partition(":")
    found: Callable[[Path, str], str | None] = getattr(importlib.import_module(module), function)
    return found


def read_contract(path: Path) -> Contract:
    """The contract inside an artefact of any format.

    Raises:
        InputError: as :func:`contract_text`.
        ContractError: the artefact carries no contract, or a changed one.
    """
    text = contract_text(path)
    if text is None:
        hint = "; give it one with `sa-deploy adopt`" if path.suffix == ".onnx" else ""
        raise ContractError(
            f"{path}: no contract in it ({METADATA_KEY}); expected a file written by "
            f"`sa-deploy export`{hint}"
        )
    return Contract.from_json(text, source=str(path))


def onnx_text(path: Path, key: str) -> str | None:
    """The value of a key in ONNX's ``metadata_props``; the graph is skipped, not read."""
    with opened(path) as data:
        for number, start, end in fields(data, 0, len(data)):
            if number == _METADATA_PROPS:
                entry = {1: b"", 2: b""}
                entry |= {inner: data[a:b] for inner, a, b in fields(data, start, end)}
                if entry[1].decode() == key:
                    return entry[2].decode()
    return None


def zip_text(path: Path, key: str) -> str | None:
    """The value of a key in the extra files of TorchScript and torch.export."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(f"/extra/{key}"):
                return archive.read(name).decode()
    return None


def openvino_text(path: Path, key: str) -> str | None:
    """The value of a key in OpenVINO's ``rt_info``."""
    root = ElementTree.parse(path).getroot()
    found = root.find("/".join(("rt_info", *key.split("."))))
    return None if found is None else found.get("value")
