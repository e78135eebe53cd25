"""The feature-space contract: what an artefact expects of its input and what its vectors mean.

It travels inside the file (ONNX ``metadata_props`` under :data:`METADATA_KEY`, TorchScript
extra file, sidecar beside an engine) as one JSON object.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from sa_runtime.errors import ContractError

METADATA_KEY = "sa_deploy.contract"
SCHEMA_VERSION = 1
RESIZE_FILTER = "bilinear-antialias"
"""Bilinear when enlarging, a triangle over the source pixels when shrinking (PIL's BILINEAR)."""

RAW = "raw"
"""Stands for the feature space of a file of others that was not adopted: nobody stated it."""
_CHECKSUM = "checksum"

Layout = Literal["nhwc", "nchw"]
DType = Literal["uint8", "float32"]
ColourOrder = Literal["bgr", "rgb"]
Embedding = Literal["parts", "global", "reduced"]
OutputKind = Literal["embedding", "attention"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Tensor = tuple[str, Sequence[object]]
"""Type and shape without the batch; a size that is no integer is left open by the graph."""


def _choice(owner: str, field: str, value: object, kind: object) -> None:
    if value not in get_args(kind):
        raise ContractError(
            f"{owner}.{field}={value!r}: expected one of {', '.join(get_args(kind))}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the artefact's image input takes.

    ``mean`` and ``std`` (of pixels scaled to 0..1, in ``colour`` order) are given where the caller
    must normalise; ``None`` says that normalisation is inside the graph.
    """

    name: str = "images"
    layout: Layout = "nhwc"
    dtype: DType = "uint8"
    colour: ColourOrder = "bgr"
    height: int
    width: int
    resize: str = RESIZE_FILTER
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check every field; raises ContractError."""
        _choice("input", "layout", self.layout, Layout)
        _choice("input", "dtype", self.dtype, DType)
        _choice("input", "colour", self.colour, ColourOrder)
        for field in ("height", "width"):
            if not (isinstance(getattr(self, field), int) and getattr(self, field) > 0):
                raise ContractError(
                    f"input.{field}={getattr(self, field)!r}: expected a positive integer"
                )
        if self.resize != RESIZE_FILTER:
            raise ContractError(
                f"input.resize={self.resize!r}: this version resizes by {RESIZE_FILTER!r} only"
            )
        if (self.mean is None) != (self.std is None):
            raise ContractError("input.mean and input.std: expected both or neither")
        if self.dtype == "uint8" and self.mean is not None:
            raise ContractError(
                "input.mean: a uint8 input is normalised inside the graph, expected none"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """What the artefact's vectors are: rows of unit length, float32 (N, dim).

    ``index`` is the position among its outputs, for formats whose outputs have no names.
    """

    name: str = "embeddings"
    embedding: str = "parts"
    dim: int
    index: int = 0

    def __post_init__(self) -> None:
        """Check every field; raises ContractError."""
        if not (isinstance(self.dim, int) and self.dim > 0):
            raise ContractError(f"output.dim={self.dim!r}: expected a positive integer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraOutput:
    """A further output of the same artefact.

    Attributes:
        name: of the tensor.
        kind: ``embedding`` (rows of unit length, float32 (N, D)) or ``attention`` (what the last
            map was weighted with, float32 (N, H', W') of mean 1).
        shape: without the batch: (D,) or (H', W').
        embedding: which one, empty for an attention map.
        space: id of its feature space, empty for an attention map.
        index: position among the outputs.
    """

    name: str
    kind: OutputKind
    shape: tuple[int, ...]
    index: int
    embedding: str = ""
    space: str = ""

    def __post_init__(self) -> None:
        """Check every field; raises ContractError."""
        _choice(f"extra output {self.name!r}", "kind", self.kind, OutputKind)
        rank = {"embedding": 1, "attention": 2}[self.kind]
        if len(self.shape) != rank or not all(isinstance(n, int) and n > 0 for n in self.shape):
            raise ContractError(
                f"extra output {self.name!r}: shape={self.shape!r}: "
                f"expected {rank} positive integers"
            )
        if (self.kind == "embedding") != bool(self.space and self.embedding):
            raise ContractError(
                f"extra output {self.name!r}: expected an embedding and a space exactly where its "
                "kind is 'embedding'"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
    """What an artefact expects and what its vectors mean.

    It never changes, so that threads may share it.

    Attributes:
        input: the image input.
        output: the embedding output that runners return.
        extra_outputs: further ones; :meth:`select` makes one of them the embedding output.
        network: the architecture, as the training floor describes it.
        recipe: name of the recipe that trained the weights.
        weights_sha256: hash of the weights the artefact was made from.
        space: id of the feature space; vectors of two artefacts compare only where it is equal.
        precision: of the graph.
        max_batch: largest batch the artefact takes, ``None`` for any.
        fixed_batch: it takes batches of exactly ``max_batch``; runners fill up smaller ones.
        flops: floating point operations an image (a multiply and an add are two), 0 if not known.
        quantization: how an int8 artefact was quantised and which layers were not; else empty.
        parity: what was measured against the FP32 network; empty where nothing was.
        producer: name and version of what wrote the artefact.
        schema: version of this schema.
    """

    input: InputSpec
    output: OutputSpec
    extra_outputs: tuple[ExtraOutput, ...] = ()
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    recipe: str = ""
    weights_sha256: str
    space: str
    precision: Precision = "fp32"
    max_batch: int | None = None
    fixed_batch: bool = False
    flops: int = 0
    quantization: dict[str, Any] = dataclasses.field(default_factory=dict)
    parity: dict[str, Any] = dataclasses.field(default_factory=dict)
    producer: str = ""
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check every field; raises ContractError."""
        if self.schema != SCHEMA_VERSION:
            raise ContractError(
                f"contract schema {self.schema!r}: this version reads schema {SCHEMA_VERSION}; "
                "export the model again or install a matching sa-deploy"
            )
        _choice("contract", "precision", self.precision, Precision)
        if self.max_batch is not None and self.max_batch < 1:
            raise ContractError(
                f"contract.max_batch={self.max_batch!r}: expected at least 1, or none"
            )
        if self.fixed_batch and self.max_batch is None:
            raise ContractError("contract.fixed_batch: expected max_batch, the size of the batch")
        if not self.space:
            raise ContractError("contract.space is empty: expected the id of the feature space")
        names = [self.output.name, *(extra.name for extra in self.extra_outputs)]
        if len(set(names)) != len(names):
            raise ContractError(f"contract outputs {', '.join(names)}: expected different names")

    def tensors(self) -> dict[str, Tensor]:
        """Type and shape without the batch of the input and of every output, by name."""
        size = (self.input.height, self.input.width)
        pixels = (*size, 3) if self.input.layout == "nhwc" else (3, *size)
        return {
            self.input.name: (self.input.dtype, pixels),
            self.output.name: ("float32", (self.output.dim,)),
            **{extra.name: ("float32", extra.shape) for extra in self.extra_outputs},
        }

    def select(self, embedding: str) -> Contract:
        """The contract of the same artefact with another of its embeddings as the one returned.

        Raises:
            ContractError: the artefact holds no such embedding; the message lists those it holds.
        """
        if embedding == self.output.embedding:
            return self
        held = [extra for extra in self.extra_outputs if extra.kind == "embedding"]
        for extra in held:
            if extra.embedding == embedding:
                mine = ExtraOutput(
                    name=self.output.name,
                    kind="embedding",
                    shape=(self.output.dim,),
                    embedding=self.output.embedding,
                    space=self.space,
                    index=self.output.index,
                )
                chosen = OutputSpec(
                    name=extra.name, embedding=embedding, dim=extra.shape[0], index=extra.index
                )
                return dataclasses.replace(
                    self,
                    output=chosen,
                    space=extra.space,
                    extra_outputs=tuple(mine if e is extra else e for e in self.extra_outputs),
                )
        names = ", ".join([self.output.embedding, *(extra.embedding for extra in held)])
        raise ContractError(
            f"embedding={embedding!r}: the artefact holds {names}; export the weights again, with "
            "that one",
            parameter="embedding",
            value=embedding,
        )

    def to_json(self) -> str:
        """The contract as one JSON object with sorted keys and a checksum of the others."""
        fields = dataclasses.asdict(self)
        return json.dumps({**fields, _CHECKSUM: _checksum(fields)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Contract:
        """Read what :meth:`to_json` wrote.

        Args:
            text: the JSON.
            source: file it came from, for messages.

        Raises:
            ContractError: not JSON, a missing or unknown field, a field with a wrong value, or a
                checksum that says that a field was changed.

        >>> c = Contract(input=InputSpec(height=4, width=2), output=OutputSpec(dim=8),
        ...              weights_sha256="0", space="s")
        >>> Contract.from_json(c.to_json(), source="x") == c
        True
        """
        try:
            fields = json.loads(text)
            stated = fields.pop(_CHECKSUM, None)
            found = _checksum(fields)
            fields["input"] = _build(InputSpec, fields["input"])
            fields["output"] = _build(OutputSpec, fields["output"])
            fields["extra_outputs"] = [
                _build(ExtraOutput, extra) for extra in fields.get("extra_outputs", ())
            ]
            contract: Contract = _build(cls, fields)
            if stated != found:
                raise ContractError(
                    f"its contract was changed after it was written (it says checksum {stated}, "
                    f"its fields have {found}); export the model again"
                )
            return contract
        except ContractError as exc:
            raise ContractError(f"{source}: {exc}", path=source) from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ContractError(
                f"{source}: its contract cannot be read ({exc}); export the model again",
                path=source,
            ) from exc


def _checksum(fields: dict[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _build(kind: Any, fields: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - known):
        raise ContractError(
            f"unknown contract fields {', '.join(unknown)}; expected {', '.join(sorted(known))}"
        )
    return kind(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    )


def space_id(weights_sha256: str, embedding: str) -> str:
    """Id of the feature space of some weights and one embedding head.

    >>> space_id("ab", "parts") == space_id("ab", "parts") != space_id("ab", "global")
    True
    """
    return hashlib.sha256(f"{weights_sha256}/{embedding}".encode()).hexdigest()[:16]


def tensor_fault(stated: Tensor, found: Tensor | None) -> str:
    """What is wrong with a graph's tensor, as the end of a sentence; empty where it is as stated.

    Args:
        stated: by the contract.
        found: in the graph, ``None`` where it is absent.

    >>> tensor_fault(("float32", (2,)), ("float32", (3,)))
    'is float32 (N, 3), the contract says float32 (N, 2)'
    >>> tensor_fault(("float32", (2,)), ("float32", ("dim",)))
    ''
    """
    if found is None:
        return f"is absent, the contract says {describe_tensor(stated)}"
    fits = len(found[1]) == len(stated[1]) and all(
        size == wanted or not isinstance(size, int)
        for size, wanted in zip(found[1], stated[1], strict=True)
    )
    if fits and found[0] == stated[0]:
        return ""
    return f"is {describe_tensor(found)}, the contract says {describe_tensor(stated)}"


def describe_tensor(tensor: Tensor) -> str:
    """A type and a shape for people.

    >>> describe_tensor(("uint8", (256, None, 3)))
    'uint8 (N, 256, ?, 3)'
    """
    kind, shape = tensor
    sizes = (str(size) if isinstance(size, int) else "?" for size in shape)
    return f"{kind} ({', '.join(['N', *sizes])})"


def require_same_space(first: str, second: str, *, names: tuple[str, str]) -> None:
    """Refuse to mix vectors of two feature spaces.

    Raises:
        ContractError: the ids differ.
    """
    if first != second:
        raise ContractError(
            f"{names[0]} holds vectors of space {first}, {names[1]} of space {second}: they do not "
            "compare. Embed both with artefacts of the same weights and the same embedding"
        )
