"""Formats of model files by suffix: one row holds all that is known of one."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFormat:
    """A row of the table.

    Attributes:
        title: for people.
        runtimes: names of those that open it; where nothing was measured the first is taken.
        on_request: further ones, taken only by name: an engine is built first, which takes minutes.
        metadata: "module:function" that reads what such a file carries under a key, see
            :func:`sa_runtime.artefact.metadata.metadata_text`; empty where it carries nothing.
        beside: suffixes of the files beside it without which it is not whole.
        external: "module:function" that lists the further files which it names itself.
    """

    title: str
    runtimes: tuple[str, ...]
    on_request: tuple[str, ...] = ()
    metadata: str = ""
    beside: tuple[str, ...] = ()
    external: str = ""


FORMATS: dict[str, ModelFormat] = {
    ".onnx": ModelFormat(
        title="ONNX",
        runtimes=("openvino", "onnxruntime"),
        on_request=("tensorrt",),
        metadata="sa_runtime.artefact.metadata:onnx_text",
        external="sa_runtime.artefact.external_data:external_files",
    ),
    ".xml": ModelFormat(
        title="OpenVINO IR",
        runtimes=("openvino",),
        metadata="sa_runtime.artefact.metadata:openvino_text",
        beside=(".bin",),
    ),
    ".engine": ModelFormat(
        title="TensorRT engine",
        runtimes=("tensorrt",),
        metadata="sa_runtime.tensorrt.sidecar:engine_text",
    ),
    ".torchscript": ModelFormat(
        title="TorchScript",
        runtimes=("torchscript",),
        metadata="sa_runtime.artefact.metadata:zip_text",
    ),
    ".pt2": ModelFormat(
        title="torch.export",
        runtimes=("torch-export",),
        metadata="sa_runtime.artefact.metadata:zip_text",
    ),
    ".pt": ModelFormat(title="checkpoint", runtimes=("torch",)),
    ".pth": ModelFormat(title="checkpoint", runtimes=("torch",)),
    ".tar": ModelFormat(title="checkpoint", runtimes=("torch",)),
}
"""Suffix -> format. Checkpoints are not artefacts: they carry no contract."""
ARTEFACTS: tuple[str, ...] = tuple(suffix for suffix, row in FORMATS.items() if row.metadata)
"""Suffixes of what carries a contract."""


def files_of(model: Path) -> list[Path]:
    """The file and those beside it that belong to it and exist.

    Raises:
        InputError: it names a file that is missing or outside its folder.

    >>> files_of(Path("model.onnx"))
    [PosixPath('model.onnx')]
    """
    row = FORMATS.get(model.suffix)
    if row is None or not model.exists():
        return [model]
    beside = [model.with_suffix(suffix) for suffix in row.beside]
    files = [model, *(file for file in beside if file.exists())]
    if row.external:
        module, _, function = row.external.partition(":")
        files += getattr(importlib.import_module(module), function)(model)
    return files
