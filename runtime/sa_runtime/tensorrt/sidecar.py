"""What is known about an engine, in a JSON file beside it: ``MODEL.engine.json``.

TensorRT's own file says neither what the vectors mean nor what made it; without its
sidecar an engine is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.errors import ContractError
from sa_runtime.system.files import atomic_path
from sa_runtime.system.gpus import Gpu
from sa_runtime.tensorrt.flavour import FlavourName
from sa_runtime.tensorrt.options import BuildOptions

SCHEMA_VERSION = 1
_RTX_LEAST = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The sidecar.

    Attributes:
        contract: of the engine: the ONNX file's, with the profile's largest batch.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        tensorrt_version: the version that built it, for example ``11.4.0.106``.
        gpu: name of the GPU that built it, empty where none did.
        compute_capability: of that GPU, 90 for 9.0; ``None`` where none did.
        cuda_version: newest CUDA of the driver then, 13000 for 13.0; ``None`` without a driver.
        options: what it was built with, the profile among them.
        precision: of the graph.
        plugin_nodes: AttentionPool nodes that run as the fused kernel.
        plugin_sha256: of that kernel, empty where there is none.
        onnx_sha256: of the file it was built from.
        engine_sha256: of the engine.
        layers: of the parsed network, by type.
        compute_types: output types of its convolutions and matrix products.
        built_at: UTC, ISO 8601.
        build_seconds: parsing and building.
        schema: version of this file's layout.
    """

    contract: Contract
    flavour: FlavourName
    tensorrt_version: str
    gpu: str
    compute_capability: int | None
    cuda_version: int | None
    options: BuildOptions
    precision: str
    plugin_nodes: int
    plugin_sha256: str
    onnx_sha256: str
    engine_sha256: str
    layers: dict[str, int]
    compute_types: dict[str, int]
    built_at: str
    build_seconds: float
    schema: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """One JSON object, for people too."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["contract"] = json.loads(self.contract.to_json())
        fields["options"] = self.options.to_dict()
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> EngineInfo:
        """Read what :meth:`to_json` wrote.

        Raises:
            ContractError: not JSON, another schema, or fields that are missing or wrong.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields.get("schema") != SCHEMA_VERSION:
                raise ContractError(
                    f"{source}: schema {fields.get('schema')!r}, this version reads "
                    f"{SCHEMA_VERSION}; build the engine again: sa-deploy build MODEL.onnx"
                )
            fields["contract"] = Contract.from_json(json.dumps(fields["contract"]), source=source)
            fields["options"] = BuildOptions.from_dict(fields["options"])
            return cls(**fields)
        except ContractError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ContractError(
                f"{source}: not an engine's sidecar ({exc}); build the engine again: "
                "sa-deploy build MODEL.onnx"
            ) from exc


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine on disk.

    Attributes:
        path: the engine.
        info: its sidecar.
        min_cosine: to the ONNX file's own vectors on the worst crop that it carries; ``None`` where
            they were not compared.
    """

    path: Path
    info: EngineInfo
    min_cosine: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        info, profile = self.info, self.info.options.profile
        return {
            "engine": str(self.path),
            "size_bytes": self.path.stat().st_size,
            "flavour": info.flavour,
            "tensorrt_version": info.tensorrt_version,
            "gpu": info.gpu,
            "precision": info.precision,
            "batch": {"min": profile.min, "opt": profile.opt, "max": profile.max},
            "plugin_nodes": info.plugin_nodes,
            "layers": sum(info.layers.values()),
            "compute_types": info.compute_types,
            "build_seconds": info.build_seconds,
            "min_cosine": self.min_cosine,
            "space": info.contract.space,
        }


def sidecar_path(engine: Path) -> Path:
    """Where the sidecar of an engine lies.

    >>> sidecar_path(Path("a/model.engine")).name
    'model.engine.json'
    """
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, content: bytes, info: EngineInfo) -> None:
    """Write an engine and its sidecar, each whole or not at all.

    The engine comes last: its hash stands in the sidecar, so that a pair that was torn apart by a
    crash in between does not pass :func:`read_sidecar`'s callers for a good one.
    """
    with atomic_path(sidecar_path(engine)) as temporary:
        temporary.write_text(info.to_json())
    with atomic_path(engine) as temporary:
        temporary.write_bytes(content)


def engine_text(path: Path, key: str) -> str | None:
    """The contract, which is all that an engine's sidecar keeps under a key."""
    return read_sidecar(path).contract.to_json() if key == METADATA_KEY else None


def read_sidecar(engine: Path) -> EngineInfo:
    """The sidecar of an engine.

    Raises:
        ContractError: there is none, or it cannot be read.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ContractError(
            f"{engine}: no {path.name} beside it; an engine alone does not say what its vectors "
            "mean. Copy both files, or build it again: sa-deploy build MODEL.onnx"
        )
    return EngineInfo.from_json(path.read_text(), source=str(path))


def engine_sha256(content: bytes) -> str:
    """Hash of a serialised engine."""
    return hashlib.sha256(content).hexdigest()


def version_obstacle(info: EngineInfo, version: str) -> str:
    """Why TensorRT ``version`` cannot run an engine, as a sentence; empty where it can."""
    if _same_version(info, version):
        return ""
    kept = "the same major version" if info.options.version_compat else "the same version"
    return (
        f"it was built by TensorRT {info.tensorrt_version} and this is {version}; it runs on "
        f"{kept} only"
    )


def gpu_obstacle(info: EngineInfo, gpu: Gpu) -> str:
    """Why a GPU cannot run an engine, as a sentence; empty where it can."""
    needed = _architecture(info, gpu.compute_capability)
    if needed is None:
        return ""
    return (
        f"it was built for {needed} and {gpu.name} has compute capability "
        f"{gpu.compute_capability / 10}"
    )


def _same_version(info: EngineInfo, version: str) -> bool:
    built, here = (
        tuple(map(int, text.split(".")[:3])) for text in (info.tensorrt_version, version)
    )
    if info.options.version_compat:
        return built[0] == here[0] and here >= built
    return built == here


def _architecture(info: EngineInfo, capability: int) -> str | None:
    """What the engine needs, where ``capability`` is not it."""
    level = info.options.hardware_compat
    if info.flavour == "tensorrt-rtx" and level != "same-cc":
        return None if capability >= _RTX_LEAST else "compute capability 8.0 and later"
    if level == "ampere-plus":
        return None if capability >= _RTX_LEAST else "compute capability 8.0 and later"
    if info.compute_capability is None or capability == info.compute_capability:
        return None
    return f"compute capability {info.compute_capability / 10} ({info.gpu})"
