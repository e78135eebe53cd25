"""From a checkpoint to artefacts on disk, each proven before it gets its name."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sa_export.artefact_files import RUNTIMES, Artefact, Writer, atomic_artefact, write_report
from sa_export.contracts import contract_of, resized
from sa_export.crop_set import CropSet
from sa_export.deploy import DeployNetwork, GraphSpec
from sa_export.gates import DEFAULT_GATES, doubt, require_parity
from sa_export.kinds import FloatType
from sa_export.onnx_file import BF16_OPSET, DEFAULT_OPSET, onnx_from_network
from sa_export.onnx_graph import OnnxWriter
from sa_export.openvino_file import OpenVinoWriter
from sa_export.options import ExportOptions, Format
from sa_export.parity import Parity, canary_of_crops, crop_embedder, measure_parity
from sa_export.quantize.quantizer import QAT_ADVICE, Calibration, Quantizer
from sa_export.quantize.scheme import FP16_SCALE_OPSET, SCHEMES, Target
from sa_export.quantize.search import Limits
from sa_export.torch_files import TorchExportWriter, TorchScriptWriter
from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.canary import CANARY_KEY
from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.artefact.formats import files_of
from sa_runtime.artefact.reference import REFERENCE_KEY, make_reference
from sa_runtime.errors import bad_value
from sa_runtime.runners.base import encode
from sa_runtime.runners.opening import open_runner
from sa_training.checkpoints import Checkpoint

if TYPE_CHECKING:
    from onnx import ModelProto

_log = logging.getLogger(__name__)


class Exporter:
    """Writes artefacts of one checkpoint; what they share is made once.

    Args:
        checkpoint: the weights.
        options: what to write.
        crops: to compare artefacts and network on, at the size of the input.
        calibration: where int8 ranges come from; needed for that precision only.
        on_note: called with a sentence about what takes long.

    Raises:
        InputError: options that do not fit the network or each other.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ExportOptions,
        crops: CropSet,
        *,
        calibration: Calibration | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if options.precision == "int8" and calibration is None:
            raise bad_value("precision", "int8", "needs calibration crops")
        self.options = options
        self.crops = crops
        self.gates = options.gates or DEFAULT_GATES[options.precision]
        self.network = resized(checkpoint.network, options.height, options.width)
        self.deployed = DeployNetwork(
            self.network,
            GraphSpec(
                embeddings=options.embeddings,
                input=options.input,
                compute="fp32" if options.precision == "int8" else options.precision,
                attention_map=options.attention_map,
            ),
        )
        self.contract = contract_of(checkpoint, self.deployed, options)
        self._calibration = calibration
        self._on_note = on_note
        self._references: dict[str, Embeddings] = {}
        self._models: dict[tuple[bool, FloatType], ModelProto] = {}
        self._quantizer: Quantizer | None = None

    def write(self, kind: Format, folder: Path) -> Artefact:
        """Write one artefact, compare it with the network, and give it its name.

        Raises:
            ParityError: it disagrees; nothing of it is left.
            InputError: the format does not go with the precision.
            MissingPackageError: a package that writes or runs it is not installed.
        """
        write, contract = self._writer(kind)
        target = folder / self.options.file_name(kind)
        with atomic_artefact(target) as temporary:
            write({METADATA_KEY: contract.to_json()}, temporary)
            parity, canary = self._proven(kind, temporary, target)
            summary = {name: report.summary() for name, report in parity.items()}
            contract = dataclasses.replace(contract, parity=summary)
            metadata = {METADATA_KEY: contract.to_json(), CANARY_KEY: canary}
            if known := make_reference(self.reference(self.options.embeddings[0])):
                metadata[REFERENCE_KEY] = known
            write(metadata, temporary)
        artefact = Artefact(
            path=target,
            format=kind,
            contract=contract,
            parity=parity,
            size_bytes=sum(path.stat().st_size for path in files_of(target)),
        )
        write_report(artefact, self.gates)
        size = artefact.size_bytes
        _log.info("%s: written, %.1f MB", target, size / 1e6, extra={"size_bytes": size})
        return artefact

    def reference(self, embedding: str) -> Embeddings:
        """The FP32 network's vectors of the crops."""
        if embedding not in self._references:
            embed = crop_embedder(self.network, embedding)
            self._references[embedding] = embed(self.crops.images)
        return self._references[embedding]

    def onnx_model(self, *, plugin: bool, compute: FloatType | None = None) -> ModelProto:
        """A new copy of the ONNX model in a floating type, the options' own by default."""
        key = (plugin, compute or self.deployed.spec.compute)
        if key not in self._models:
            self._models[key] = self._traced(plugin=plugin, compute=compute)
        model = self._models[key]
        copied: ModelProto = type(model).FromString(model.SerializeToString())
        return copied

    def _traced(self, *, plugin: bool, compute: FloatType | None) -> ModelProto:
        deployed, least = self.deployed, DEFAULT_OPSET
        if compute is not None and compute != deployed.spec.compute:
            deployed = DeployNetwork(
                self.network, dataclasses.replace(deployed.spec, compute=compute)
            )
            least = FP16_SCALE_OPSET
        if deployed.spec.compute == "bf16":
            least = BF16_OPSET
        opset = self.options.opset or least
        if opset < least:
            raise bad_value(
                "opset",
                opset,
                f"expected at least {least} for `precision={self.options.precision!r}`, or none",
            )
        return onnx_from_network(deployed, self.contract, opset=opset, plugin=plugin)

    def _writer(self, kind: Format) -> tuple[Writer, Contract]:
        if kind in ("onnx", "openvino"):
            plugin = kind == "onnx" and self.options.plugin
            contract = self.contract
            if self.options.precision == "int8":
                model, contract = self._quantised(kind, plugin=plugin)
            else:
                model = self.onnx_model(plugin=plugin)
            if kind == "onnx":
                return OnnxWriter(model), contract
            half = self.options.precision in ("fp16", "bf16")
            return OpenVinoWriter(model, half=half), contract
        if self.options.precision == "int8":
            raise bad_value(
                "precision",
                "int8",
                f"int8 is written as ONNX or OpenVINO, not as {kind}; expected one of those, or "
                "`precision='bf16'`",
            )
        writer = TorchScriptWriter if kind == "torchscript" else TorchExportWriter
        return writer(self.deployed, self.contract), self.contract

    def _quantised(self, kind: Format, *, plugin: bool) -> tuple[ModelProto, Contract]:
        calibration = self._calibration
        assert calibration is not None
        if self._quantizer is None:
            self._quantizer = Quantizer(
                calibration,
                lambda images: encode(images, self.contract.input),
                self.crops,
                self.reference(self.options.embeddings[0]),
                Limits(max_map_drop=self.gates.max_map_drop, min_cosine=self.gates.min_cosine),
                self._on_note,
            )
        target: Target = calibration.target or ("cpu" if kind == "openvino" else "any")
        model = self.onnx_model(plugin=plugin, compute=SCHEMES[target].rest)
        quantised = self._quantizer.quantise(model, target)
        report = self._quantizer.report(target, model)
        return quantised, dataclasses.replace(self.contract, quantization=report)

    def _proven(self, kind: Format, path: Path, target: Path) -> tuple[dict[str, Parity], str]:
        """Parity by embedding, and canary crops of the main one."""
        runtime = RUNTIMES[kind]
        if kind == "onnx" and self.options.precision == "bf16":
            runtime = "openvino"  # ONNX Runtime has no bf16 convolution on the CPU
        reports, canary = {}, ""
        for embedding in self.options.embeddings:
            self._on_note(f"comparing {target.name} ({embedding}) with the network on {runtime}")
            with open_runner(path, runtime, embedding=embedding) as runner:
                report = measure_parity(
                    runner.run,
                    self.reference(embedding),
                    self.crops,
                    runtime=runtime,
                    largest=self.options.batch or 16,
                )
                canary = canary or canary_of_crops(self.crops, runner)
            advice = QAT_ADVICE if self.options.precision == "int8" else ""
            require_parity(report, self.gates, name=f"{target} ({embedding})", advice=advice)
            if self.options.precision == "int8" and (said := doubt(report, self.gates)):
                self._on_note(said)
            reports[embedding] = report
        return reports, canary
