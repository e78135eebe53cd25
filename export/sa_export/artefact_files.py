"""What is written of an artefact: the file, whole or absent, and its report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sa_export.describe import quantization_rows
from sa_export.gates import Gates
from sa_export.options import Format
from sa_export.parity import Parity
from sa_runtime.artefact.contract import Contract
from sa_runtime.system.files import atomic_path

RUNTIMES: dict[Format, str] = {
    "onnx": "onnxruntime",
    "torchscript": "torchscript",
    "torch-export": "torch-export",
    "openvino": "openvino",
}
Writer = Callable[[Mapping[str, str], Path], None]
"""Writes a file with some metadata inside."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artefact:
    """What was written.

    Attributes:
        path: the file.
        format: its kind.
        contract: as it stands inside.
        parity: by embedding.
        size_bytes: of the file, and of the weights beside it.
    """

    path: Path
    format: Format
    contract: Contract
    parity: dict[str, Parity]
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": str(self.path),
            "format": self.format,
            "size_bytes": self.size_bytes,
            "contract": dataclasses.asdict(self.contract),
            "parity": {name: report.to_dict() for name, report in self.parity.items()},
        }

    def rows(self) -> list[tuple[str, str]]:
        """The artefact and its parity as rows for people."""
        rows = [
            ("size", f"{self.size_bytes / 1e6:.1f} MB"),
            ("precision", self.contract.precision),
            ("space", self.contract.space),
        ]
        rows += quantization_rows(self.contract)
        for name, report in self.parity.items():
            prefix = "" if len(self.parity) == 1 else f"{name}: "
            rows += [(prefix + what, value) for what, value in report.rows()]
        return rows


@contextmanager
def atomic_artefact(target: Path) -> Iterator[Path]:
    """:func:`sa_runtime.system.files.atomic_path` for an artefact, which may be two files (IR)."""
    with atomic_path(target) as temporary:
        if target.suffix != ".xml":
            yield temporary
            return
        beside = temporary.with_suffix(".bin")  # where OpenVINO writes and seeks the weights
        try:
            with atomic_path(target.with_suffix(".bin")) as weights:
                yield temporary
                beside.replace(weights)
        finally:
            beside.unlink(missing_ok=True)


def write_report(artefact: Artefact, gates: Gates) -> Path:
    """Write what was measured beside the artefact, as ``FILE.parity.json``."""
    report: dict[str, Any] = {
        "artefact": artefact.path.name,
        "size_bytes": artefact.size_bytes,
        "precision": artefact.contract.precision,
        "weights_sha256": artefact.contract.weights_sha256,
        "gates": dataclasses.asdict(gates),
        "quantization": artefact.contract.quantization,
        "embeddings": {name: parity.to_dict() for name, parity in artefact.parity.items()},
    }
    path = artefact.path.with_name(f"{artefact.path.name}.parity.json")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    return path
