"""int8 from a floating ONNX model: calibrate, search for layers to keep, insert Q/DQ."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from sa_export.crop_set import CropSet
from sa_export.onnx_graph import inlined
from sa_export.parity import cosines, score
from sa_export.quantize.bias import bias_corrected
from sa_export.quantize.calibrate import Channels, channels, histograms
from sa_export.quantize.equalise import equalised
from sa_export.quantize.layers import layers, quantised_tensors
from sa_export.quantize.qdq import quantise
from sa_export.quantize.scheme import Scheme, Target, scheme_for
from sa_export.quantize.search import Choice, Cost, Limits, choose_layers
from sa_runtime.arrays import Embeddings, Images
from sa_runtime.errors import MissingPackageError, ParityError, bad_value
from sa_runtime.system.extras import require
from sa_training.ranges import Calibrator, value_range

if TYPE_CHECKING:
    from onnx import ModelProto

_log = logging.getLogger(__name__)

Encode = Callable[[Images], NDArray[Any]]
"""(N, H, W, 3) uint8 BGR -> what the model's input takes."""
_BATCH = 16
QAT_ADVICE = "fine-tune the checkpoint for int8 (`sa-deploy train --qat --resume CHECKPOINT`)"
"""What closes a gap that keeping layers in float does not."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What int8 ranges are taken from.

    Attributes:
        images: (N, H, W, 3) uint8 BGR crops.
        source: where they came from, for the report.
        calibrator: how a range is taken from them.
        target: what the artefact is for; ``None``: ``cpu`` for OpenVINO, ``any`` for ONNX.
        equalise: bring channels to like ranges first, and take the shift of rounded weights into
            the biases.
    """

    images: Images
    source: str
    calibrator: Calibrator = "percentile"
    target: Target | None = None
    equalise: bool = True

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.calibrator not in get_args(Calibrator):
            choices = ", ".join(get_args(Calibrator))
            raise bad_value("calibrator", self.calibrator, f"unknown; choose from {choices}")
        if self.target is not None:
            scheme_for(self.target)


class Quantizer:
    """Quantises models of one network; layers are chosen once for each target.

    Args:
        calibration: crops and how their ranges are taken.
        encode: crops to the models' input.
        crops: to measure retrieval on.
        reference: the FP32 network's vectors of them.
        limits: of what quantisation may cost.
        on_note: called with a sentence about what was measured.
    """

    def __init__(
        self,
        calibration: Calibration,
        encode: Encode,
        crops: CropSet,
        reference: Embeddings,
        limits: Limits,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._calibration = calibration
        self._encode = encode
        self._crops = crops
        self._reference = reference
        self._limits = limits
        self._on_note = on_note
        self._choices: dict[Target, Choice] = {}

    def quantise(self, model: ModelProto, target: Target) -> ModelProto:
        """A copy of ``model`` in int8, but for the layers that cost too much.

        Args:
            model: computing in the ``rest`` of the target's scheme.
            target: what the result is for.

        Raises:
            ParityError: every layer would have to stay in float.
        """
        scheme = scheme_for(target)
        seen: dict[str, Channels] = {}
        if self._calibration.equalise:
            read = [node.input[0] for node in model.graph.node if node.op_type == "Conv"]
            found = channels(model, list(dict.fromkeys(read)), self._batches())
            model, seen = equalised(model, found, scheme)
        ranges = self._ranges(model, scheme)

        def lowered(floating: ModelProto, kept: Collection[str]) -> ModelProto:
            corrected = bias_corrected(floating, seen, scheme, kept)
            return quantise(corrected, ranges, scheme, kept)

        if target not in self._choices:
            plain = inlined(model)
            self._choices[target] = choose_layers(
                layers(plain),
                lambda kept: self._cost(lowered(plain, kept)),
                self._limits,
                self._on_note,
            )
        kept = self._choices[target].kept
        if len(kept) == len(layers(model)):
            drop = self._choices[target].all_quantised.map_drop
            raise ParityError(
                f"`precision='int8'`: quantised as a whole it loses {drop:.2f} points of mAP, and "
                "no layer can be quantised within the limits; no file was left. Try another "
                f"`calibrator` or more `calibration` crops, {QAT_ADVICE}, or `precision='bf16'`"
            )
        for layer in kept:
            _log.info("%s stays in float", layer)
        if kept:
            self._on_note(
                f"{len(kept)} of {len(layers(model))} layers stay in float; to have them in int8 "
                f"too, {QAT_ADVICE}"
            )
        return lowered(model, kept)

    def report(self, target: Target, model: ModelProto) -> dict[str, Any]:
        """What was done for a target, as the contract keeps it."""
        choice, scheme = self._choices[target], scheme_for(target)
        return {
            "target": target,
            "activations": "uint8" if scheme.unsigned else "int8, symmetric",
            "weights": "int8, symmetric, per channel",
            "rest": scheme.rest,
            "calibrator": self._calibration.calibrator,
            "equalised": self._calibration.equalise,
            "calibration": self._calibration.source,
            "calibration_crops": len(self._calibration.images),
            "layers": len(layers(model)),
            "kept": {
                layer: {
                    "map_drop_alone": round(cost.map_drop, 4),
                    "mean_cosine_alone": round(cost.mean_cosine, 6),
                }
                for layer, cost in choice.kept.items()
            },
            "map_drop_all_quantised": round(choice.all_quantised.map_drop, 4),
            "trials": choice.trials,
        }

    def _ranges(self, model: ModelProto, scheme: Scheme) -> dict[str, tuple[float, float]]:
        found = histograms(model, quantised_tensors(model, scheme), self._batches())
        return {
            tensor: value_range(histogram, self._calibration.calibrator, scheme.levels)
            for tensor, histogram in found.items()
        }

    def _batches(self) -> Iterator[NDArray[Any]]:
        """The calibration crops as the model's input takes them."""
        images = self._calibration.images
        return (self._encode(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH))

    def _cost(self, model: ModelProto) -> Cost:
        run = _compiled(model)
        images = self._crops.images
        vectors = np.concatenate(
            [run(self._encode(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
        )
        cosine = cosines(vectors, self._reference)
        theirs, ours = score(self._reference, self._crops), score(vectors, self._crops)
        drop = 0.0 if theirs is None or ours is None else 100 * (theirs.mAP - ours.mAP)
        return Cost(map_drop=drop, mean_cosine=float(cosine.mean()), min_cosine=float(cosine.min()))


def _compiled(model: ModelProto) -> Callable[[NDArray[Any]], Embeddings]:
    """Run a plain model on OpenVINO, several times faster on int8; else on ONNX Runtime."""
    name = model.graph.output[0].name
    data = model.SerializeToString()
    try:
        openvino = require("openvino", extra="cpu", purpose="the search")
    except MissingPackageError:
        ort = require("onnxruntime", extra="export", purpose="the search")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(data, options)
        feed = session.get_inputs()[0].name
        return lambda batch: np.asarray(session.run([name], {feed: batch})[0], np.float32)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: np.array(compiled(batch)[name], np.float32)
