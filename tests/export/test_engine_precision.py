"""What TensorRT-RTX makes of the exported precisions, read from the layers of the built engine.

At detailed verbosity the builder lists the engine's layers with the types of what they read, hold
and write. (Its inspector says the same of a loaded engine, but loading one needs a GPU.)
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from sa_export.artefacts import Exporter
from sa_export.crop_set import CropSet
from sa_export.gates import Gates
from sa_export.options import ExportOptions
from sa_export.quantize.quantizer import Calibration
from sa_runtime.artefact.contract import Precision
from sa_runtime.tensorrt.build import engine_from_onnx
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions, Profile
from sa_training.checkpoints import load_checkpoint

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

LAYER = re.compile(
    r"^Name: (?P<name>\S+), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName:",
    re.MULTILINE,
)
CONVOLUTIONS = 12
OPEN = Gates(max_map_drop=100.0, min_cosine=-1.0, min_independence=0.9)


class Layer(NamedTuple):
    """A layer of an engine: its kind, and the types of images, weights and results."""

    kind: str
    image: str
    weights: str
    result: str


def first_type(tensors: str) -> str:
    found = re.search(r"Datatype: (\w+)", tensors)
    return found.group(1) if found else ""


def layers_of(path: Path) -> list[Layer]:
    """Build an engine and read its layers from the builder's log."""
    log: list[str] = []
    options = BuildOptions(profile=Profile(min=1, opt=4, max=8), debug_layers=True)
    engine_from_onnx(
        read_graph(path),
        load_flavour("tensorrt-rtx"),
        options,
        gpu=None,
        log=lambda severity, message: log.append(message),
    )
    return [
        Layer(
            found["kind"],
            first_type(found["inputs"]),
            first_type(found["constants"]),
            first_type(found["outputs"]),
        )
        for found in LAYER.finditer("\n".join(log))
    ]


@pytest.fixture(scope="module")
def engines(
    tiny_checkpoint: Path,
    crops: CropSet,
    calibration: CropSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Precision, list[Layer]]:
    """Layers of the engines of the tiny network's ONNX files, every layer quantised."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    chosen = Calibration(images=calibration.images, source="generated", target="tensorrt")
    found = {}
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    for precision in precisions:
        options = ExportOptions(precision=precision, gates=OPEN)
        exporter = Exporter(checkpoint, options, crops, calibration=chosen)
        artefact = exporter.write("onnx", tmp_path_factory.mktemp(precision))
        assert not artefact.contract.quantization.get("kept")
        found[precision] = layers_of(artefact.path)
    return found


@pytest.mark.parametrize(
    ("precision", "types"),
    [("fp32", ("Float", "Float")), ("fp16", ("Half", "Half")), ("int8", ("Int8", "Int8"))],
)
def test_every_convolution_of_the_engine_computes_in_its_precision(
    engines: dict[Precision, list[Layer]], precision: Precision, types: tuple[str, str]
) -> None:
    convolutions = [layer for layer in engines[precision] if layer.kind == "correlation"]
    assert Counter((layer.image, layer.weights) for layer in convolutions) == {types: CONVOLUTIONS}


def test_vectors_leave_every_engine_in_float(engines: dict[Precision, list[Layer]]) -> None:
    for layers in engines.values():
        assert layers[-1].result == "Float"
    # Half precision between the layers, not FP32 that is cast at the border.
    assert {layer.result for layer in engines["fp16"] if layer.kind == "maxpool"} == {"Half"}
    assert {layer.result for layer in engines["int8"] if layer.kind == "maxpool"} == {"Int8"}
