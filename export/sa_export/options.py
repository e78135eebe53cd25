"""What an export is asked for."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from sa_export.gates import Gates
from sa_export.kinds import InputKind
from sa_runtime.artefact.contract import Precision
from sa_runtime.errors import bad_value

Format = Literal["onnx", "torchscript", "torch-export", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "torchscript": ".torchscript",
    "torch-export": ".pt2",
    "openvino": ".xml",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to write.

    Attributes:
        embeddings, input, attention_map: see :class:`sa_export.deploy.GraphSpec`.
        precision: of the artefacts.
        height, width: of the input, the network's own where ``None``.
        opset: of ONNX's standard operators, ``None`` for the default.
        batch: a fixed batch size, ``None`` for any.
        plugin: whether attention pooling is one node in ONNX.
        gates: what the artefact must keep, ``None`` for the defaults of the precision.
    """

    embeddings: tuple[str, ...] = ("parts",)
    input: InputKind = "uint8-nhwc"
    attention_map: bool = False
    precision: Precision = "fp32"
    height: int | None = None
    width: int | None = None
    opset: int | None = None
    batch: int | None = None
    plugin: bool = True
    gates: Gates | None = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.precision not in get_args(Precision):
            choices = ", ".join(get_args(Precision))
            raise bad_value("precision", self.precision, f"unknown; choose from {choices}")
        if self.batch is not None and self.batch < 1:
            raise bad_value("batch", self.batch, "expected at least 1")

    def file_name(self, kind: Format) -> str:
        """``model.onnx``; ``model.fp16.onnx`` where the precision is not FP32."""
        middle = "" if self.precision == "fp32" else f".{self.precision}"
        return f"model{middle}{SUFFIXES[kind]}"
