"""What NVIDIA's servers want beside a model: a Triton repository, a DeepStream tracker section."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

from sa_runtime.artefact.contract import Contract
from sa_runtime.artefact.external_data import external_files
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import InputError, bad_value, check_fields
from sa_runtime.system.files import atomic_path

DEFAULT_MAX_BATCH = 32
_BACKENDS = {".onnx": ("onnxruntime", "model.onnx"), ".engine": ("tensorrt", "model.plan")}
_TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_NETWORK_MODES = {"fp32": 0, "fp16": 1, "int8": 2}
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton serves a model.

    Attributes:
        name: of the model; letters, digits, ``_``, ``-`` and ``.``.
        max_batch: largest batch, where the artefact takes any.
        delay_us: microseconds that a request waits for others to share its batch.
        instances: copies of the model.
        gpu: whether they run on GPUs.
    """

    name: str = "sa_reid"
    max_batch: int = DEFAULT_MAX_BATCH
    delay_us: int = 2000
    instances: int = 1
    gpu: bool = True

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if not _NAME.fullmatch(self.name):
            raise bad_value("name", self.name, "expected letters, digits, _, - and . only")
        check_fields(
            self,
            [
                ("max_batch", self.max_batch >= 1, "at least 1"),
                ("instances", self.instances >= 1, "at least 1"),
                ("delay_us", self.delay_us >= 0, "0 or more"),
            ],
        )


def write_triton(model: Path, repository: Path, options: TritonOptions) -> Path:
    """Write ``REPOSITORY/NAME/config.pbtxt`` and ``REPOSITORY/NAME/1/`` with the model.

    Args:
        model: an ONNX artefact or a TensorRT engine.
        repository: folder of Triton's models; others in it are left alone.
        options: how it is served.

    Returns:
        The ``config.pbtxt``.

    Raises:
        InputError: a format that Triton does not serve this way.
        ContractError: no readable contract.
    """
    if model.suffix not in _BACKENDS:
        raise InputError(
            f"{model}: Triton serves {' and '.join(_BACKENDS)} here; export it as ONNX, or build "
            "an engine with `sa-deploy build`"
        )
    contract = read_contract(model)
    file_name = _BACKENDS[model.suffix][1]
    folder = repository / options.name
    with atomic_path(folder / "1" / file_name) as temporary:
        shutil.copyfile(model, temporary)
    if model.suffix == ".onnx":  # the files of external weights go by their names
        for file in external_files(model):
            with atomic_path(folder / "1" / file.relative_to(model.parent)) as temporary:
                shutil.copyfile(file, temporary)
    config = folder / "config.pbtxt"
    with atomic_path(config) as temporary:
        temporary.write_text(triton_config(model.suffix, contract, options))
    return config


def triton_config(suffix: str, contract: Contract, options: TritonOptions) -> str:
    """The model configuration as Triton's protobuf text.

    The contract goes along under ``parameters``, so that clients can check the feature space.
    """
    backend, file_name = _BACKENDS[suffix]
    spec = contract.input
    size = (spec.height, spec.width)
    dims = (*size, 3) if spec.layout == "nhwc" else (3, *size)
    largest = contract.max_batch or options.max_batch
    outputs: list[tuple[str, tuple[int, ...]]] = [
        (contract.output.name, (contract.output.dim,)),
        *((extra.name, extra.shape) for extra in contract.extra_outputs),
    ]
    smaller = [] if contract.fixed_batch else [n for n in (8, 16, 32, 64, 128) if n < largest]
    preferred = [*smaller[-2:], largest]
    lines = [
        f"name: {_quoted(options.name)}",
        f"backend: {_quoted(backend)}",
        f"default_model_filename: {_quoted(file_name)}",
        f"max_batch_size: {largest}",
        _tensor("input", spec.name, _TRITON_TYPES[spec.dtype], dims),
        *(_tensor("output", name, "TYPE_FP32", shape) for name, shape in outputs),
        "dynamic_batching {",
        f"  preferred_batch_size: {preferred}",
        f"  max_queue_delay_microseconds: {options.delay_us}",
        "}",
        f"instance_group {{ count: {options.instances} "
        f"kind: {'KIND_GPU' if options.gpu else 'KIND_CPU'} }}",
        f"parameters {{ key: {_quoted('sa_deploy.contract')} value: "
        f"{{ string_value: {_quoted(contract.to_json())} }} }}",
    ]
    return "\n".join(lines) + "\n"


def write_deepstream(model: Path, target: Path, *, batch: int = 100) -> Path:
    """Write the ``ReID:`` section of an nvtracker configuration.

    nvtracker feeds ``netScaleFactor * (pixel - offset)`` with one scale for all channels, so that
    it can serve artefacts that normalise inside: those of ``--input nchw-float``.

    Args:
        model: an ONNX artefact.
        target: the YAML file.
        batch: largest batch, where the artefact takes any.

    Raises:
        InputError: an artefact that nvtracker cannot feed.
        ContractError: no readable contract.
    """
    contract = read_contract(model)
    spec = contract.input
    if model.suffix != ".onnx" or spec.dtype != "float32" or spec.mean is not None:
        adopted = "adopted_from" in contract.network
        command = (
            "`sa-deploy adopt MODEL --out FILE.onnx --input nchw-float`"
            if adopted
            else "`sa-deploy export WEIGHTS --onnx --input nchw-float`"
        )
        raise InputError(
            f"{model}: nvtracker feeds float images to ONNX files that normalise inside; make one "
            f"with {command}"
        )
    if contract.extra_outputs:
        names = ", ".join(extra.name for extra in contract.extra_outputs)
        raise InputError(
            f"{model}: nvtracker reads one output, this artefact also has {names}; export it "
            "with one embedding and without an attention map"
        )
    if contract.precision not in _NETWORK_MODES:
        raise InputError(
            f"{model}: precision {contract.precision}; nvtracker knows "
            f"{', '.join(_NETWORK_MODES)}, export with one of them"
        )
    onnx = model.resolve()
    values: dict[str, object] = {
        "reidType": 2,
        "batchSize": contract.max_batch or batch,
        "workspaceSize": 1000,
        "reidFeatureSize": contract.output.dim,
        "reidHistorySize": 100,
        "inferDims": [3, spec.height, spec.width],
        "networkMode": _NETWORK_MODES[contract.precision],
        "inputOrder": 0 if spec.layout == "nchw" else 1,
        "colorFormat": 0 if spec.colour == "rgb" else 1,
        "offsets": [0.0, 0.0, 0.0],
        # The artefact takes 0 to 1; the graph subtracts the mean and divides by the deviation.
        "netScaleFactor": 1 / 255,
        "keepAspc": 0,
        "addFeatureNormalization": 0,
        "onnxFile": str(onnx),
        "modelEngineFile": f"{onnx}_b{contract.max_batch or batch}_gpu0.engine",
    }
    text = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in values.items())
    with atomic_path(target) as temporary:
        temporary.write_text(
            f"%YAML:1.0\n# Made by {contract.producer} from {model.name}, feature space "
            f"{contract.space}.\nReID:\n{text}"
        )
    return target


def _tensor(kind: str, name: str, data_type: str, dims: tuple[int, ...]) -> str:
    return f"{kind} {{ name: {_quoted(name)} data_type: {data_type} dims: {list(dims)} }}"


def _quoted(text: str) -> str:
    """A protobuf text string; JSON's escapes are a subset of its own for ASCII."""
    return json.dumps(text, ensure_ascii=True)
