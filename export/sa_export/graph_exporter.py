"""From a floating ONNX graph with a contract to artefacts of every format and precision."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sa_export.artefact_files import RUNTIMES, Artefact, Writer, atomic_artefact, write_report
from sa_export.crop_set import CropSet
from sa_export.gates import Gates, require_parity
from sa_export.half import half_model
from sa_export.kinds import InputKind
from sa_export.onnx_graph import OnnxWriter, at_opset
from sa_export.openvino_file import OpenVinoWriter
from sa_export.options import SUFFIXES, Format
from sa_export.parity import canary_of_crops, measure_parity
from sa_export.preprocessing import Preprocessing
from sa_export.quantize.prepare import prepared
from sa_export.quantize.quantizer import Calibration, Quantizer
from sa_export.quantize.scheme import FP16_SCALE_OPSET, SCHEMES, Target
from sa_export.quantize.search import Limits
from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.canary import CANARY_KEY
from sa_runtime.artefact.contract import METADATA_KEY, Contract, Precision
from sa_runtime.artefact.formats import files_of
from sa_runtime.artefact.reference import REFERENCE_KEY, make_reference
from sa_runtime.errors import bad_value
from sa_runtime.runners.base import encode
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from onnx import ModelProto

    from sa_export.families.base import Network

_log = logging.getLogger(__name__)
_LOWER: tuple[Precision, ...] = ("fp16", "int8")


class GraphExporter:
    """Writes artefacts of one graph.

    Args:
        model: from uint8 crops to unit vectors, as ``contract`` says.
        contract: without parity.
        crops: to compare on.
        reference: (N, D) the original's vectors of them, of unit length.
        precision: of what is written.
        gates: what it must keep.
        calibration: where int8 ranges come from; needed for that precision only.
        network: the graph's network in torch, for TorchScript; ``None`` where there is none.
        preprocessing: what that network expects.
        on_note: called with a sentence about what takes long.

    Raises:
        InputError: a precision that the graph cannot be brought to.
    """

    def __init__(
        self,
        model: ModelProto,
        contract: Contract,
        crops: CropSet,
        reference: Embeddings,
        *,
        precision: Precision,
        gates: Gates,
        calibration: Calibration | None = None,
        network: Network | None = None,
        preprocessing: Preprocessing | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if precision != contract.precision and contract.precision != "fp32":
            raise bad_value(
                "precision",
                precision,
                f"the model is {contract.precision}, and precision once lost does not come back; "
                f"expected {contract.precision}, or a model at fp32",
            )
        if precision != contract.precision and precision not in _LOWER:
            raise bad_value(
                "precision", precision, "expected fp32, fp16 or int8 for a model that is no "
                "checkpoint of sa-deploy"
            )  # fmt: skip
        if precision == "int8" != contract.precision and calibration is None:
            raise bad_value("precision", "int8", "needs calibration crops")
        self._model = model
        self.contract = dataclasses.replace(contract, precision=precision)
        self._made_lower = precision != contract.precision
        self._crops = crops
        self._reference = reference
        self._gates = gates
        self._calibration = calibration
        self._network = network
        self._preprocessing = preprocessing
        self._on_note = on_note
        self._quantizer: Quantizer | None = None
        self._prepared: ModelProto | None = None

    def write(self, kind: Format, folder: Path) -> Artefact:
        """Write one artefact into a folder, under the name that `sa-deploy export` gives."""
        middle = f".{self.contract.precision}" if self._made_lower else ""
        return self.write_file(kind, folder / f"model{middle}{SUFFIXES[kind]}")

    def write_file(self, kind: Format, target: Path) -> Artefact:
        """Write one artefact, compare it with the original, and give it its name.

        Raises:
            ParityError: it disagrees; nothing of it is left.
            InputError: the format does not go with the precision or the model.
            MissingPackageError: a package that writes or runs it is not installed.
        """
        write, contract = self._writer(kind)
        runtime, embedding = RUNTIMES[kind], contract.output.embedding
        with atomic_artefact(target) as temporary:
            write({METADATA_KEY: contract.to_json()}, temporary)
            self._on_note(f"comparing {target.name} with the original on {runtime}")
            with open_runner(temporary, runtime) as runner:
                parity = measure_parity(
                    runner.run,
                    self._reference,
                    self._crops,
                    runtime=runtime,
                    largest=contract.max_batch or 16,
                )
                canary = canary_of_crops(self._crops, runner)
            require_parity(parity, self._gates, name=str(target))
            contract = dataclasses.replace(contract, parity={embedding: parity.summary()})
            metadata = {METADATA_KEY: contract.to_json(), CANARY_KEY: canary}
            if known := make_reference(self._reference):
                metadata[REFERENCE_KEY] = known
            write(metadata, temporary)
        artefact = Artefact(
            path=target,
            format=kind,
            contract=contract,
            parity={embedding: parity},
            size_bytes=sum(path.stat().st_size for path in files_of(target)),
        )
        write_report(artefact, self._gates)
        size = artefact.size_bytes
        _log.info("%s: written, %.1f MB", target, size / 1e6, extra={"size_bytes": size})
        return artefact

    def _writer(self, kind: Format) -> tuple[Writer, Contract]:
        precision = self.contract.precision if self._made_lower else "fp32"
        if kind == "torchscript":
            return self._torchscript(precision), self.contract
        if kind not in ("onnx", "openvino"):
            raise bad_value(
                "format", kind, "is written of checkpoints of sa-deploy only; expected onnx, "
                "openvino or torchscript"
            )  # fmt: skip
        if precision == "int8":
            model, contract = self._quantised(kind)
            return (OnnxWriter if kind == "onnx" else _openvino)(model), contract
        if kind == "openvino":
            return OpenVinoWriter(self._copy(), half=precision == "fp16"), self.contract
        model = self._copy() if precision == "fp32" else half_model(self._copy())
        return OnnxWriter(model), self.contract

    def _copy(self) -> ModelProto:
        copied: ModelProto = type(self._model).FromString(self._model.SerializeToString())
        return copied

    def _torchscript(self, precision: Precision) -> Writer:
        if self._network is None or self._preprocessing is None:
            raise bad_value(
                "format",
                "torchscript",
                "an ONNX graph cannot be written as TorchScript; adopt the checkpoint, or write "
                "onnx or openvino",
            )
        if self._network.family == "TorchScript":
            raise bad_value("format", "torchscript", "the model is one; write onnx or openvino")
        if precision != "fp32":
            raise bad_value(
                "precision", precision, "TorchScript is written at fp32; write onnx or openvino"
            )
        from sa_export.adopted_module import AdoptedModule
        from sa_export.torch_files import TorchScriptWriter

        kind: InputKind = "nchw-float" if self.contract.input.layout == "nchw" else "uint8-nhwc"
        module = AdoptedModule(self._network.module, self._preprocessing, kind)
        return TorchScriptWriter(module, self.contract)

    def _quantised(self, kind: Format) -> tuple[ModelProto, Contract]:
        calibration = self._calibration
        assert calibration is not None
        if self._quantizer is None:
            self._quantizer = Quantizer(
                calibration,
                lambda images: encode(images, self.contract.input),
                self._crops,
                self._reference,
                Limits(max_map_drop=self._gates.max_map_drop, min_cosine=self._gates.min_cosine),
                self._on_note,
            )
        target: Target = calibration.target or ("cpu" if kind == "openvino" else "any")
        if self._prepared is None:
            self._prepared = prepared(self._model)
        model = self._prepared
        if SCHEMES[target].rest == "fp16":
            model = at_opset(half_model(model), FP16_SCALE_OPSET)
        quantised = self._quantizer.quantise(model, target)
        report = self._quantizer.report(target, model)
        return quantised, dataclasses.replace(self.contract, quantization=report)


def _openvino(model: ModelProto) -> OpenVinoWriter:
    return OpenVinoWriter(model, half=False)
