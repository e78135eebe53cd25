"""int8 by this project's quantiser against those of NNCF, ONNX Runtime and ModelOpt.

Runs in an environment that has nncf and nvidia-modelopt beside sa-deploy, on the folder that
``benchmarks/adoption_int8.py`` filled: a trained network as FP32 ONNX artefact, and its world::

    python -m benchmarks.quantisers FOLDER [NAME ...] [--only PART] [--out FILE]

All take the same graph and the same calibration crops, each as its documentation says for
networks of this kind. Whatever they write runs on OpenVINO: what differs is the quantiser alone.
The reference is FP32 on ONNX Runtime, over all crops of the world's test people. The part that is
timed can be left for a quiet hour: ``--only scores`` first, ``--only bench`` later.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adoption_int8 import command
from benchmarks.record import record
from sa_export.crop_set import CropSet
from sa_export.crop_sets import calibration_crops, validation_crops
from sa_export.onnx_graph import write_contract
from sa_export.openvino_file import write_ir
from sa_export.parity import measure_parity
from sa_runtime.arrays import Images
from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.runners.opening import open_runner

CROPS = 320
"""Calibration crops of each; what NNCF takes by default is 300."""
_BATCH = 16


def ours(plain: Path, world: Path, images: Images, target: Path) -> None:
    """``sa-deploy export``, which measures retrieval and keeps in float what it must."""
    words = ["--format", "openvino", "--precision", "int8", "--calibration", world]
    said = ["--calibration-crops", len(images), "--validation", world]
    with tempfile.TemporaryDirectory() as folder:
        command("export", plain, *words, *said, "--out", folder)
        for file in Path(folder).glob("*.int8.*"):
            file.rename(target.with_suffix(file.suffix))


def nncf(*, transformer: bool) -> Callable[[Path, Path, Images, Path], None]:
    """NNCF's post-training quantisation of the OpenVINO model."""

    def write(plain: Path, world: Path, images: Images, target: Path) -> None:
        import nncf as library
        import openvino

        model = openvino.convert_model(plain)
        kind = library.ModelType.TRANSFORMER if transformer else None
        crops = library.Dataset([image[None] for image in images])
        lower = library.quantize(model, crops, subset_size=len(images), model_type=kind)
        contract = _int8(plain)
        write_ir(lower, {METADATA_KEY: contract.to_json()}, target, half=False)

    return write


def onnx_runtime(plain: Path, world: Path, images: Images, target: Path) -> None:
    """ONNX Runtime's static quantiser: Q/DQ, int8 both, per channel."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = _batches(plain, images)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        # Its symbolic shapes fail on the ViT; its own way round is to leave them out.
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            Reader(),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True},
        )
    _keep(onnx.load(str(target)), plain, target)


def modelopt(plain: Path, world: Path, images: Images, target: Path) -> None:
    """NVIDIA's Model Optimizer, for TensorRT."""
    import onnx
    from modelopt.onnx.quantization import quantize

    name = read_contract(plain).input.name
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "int8.onnx"
        quantize(
            str(plain),
            "int8",
            calibration_data={name: images},
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(written),
            log_level="ERROR",
        )
        model = onnx.load(str(written))
    _keep(model, plain, target)


QUANTISERS: dict[str, tuple[str, Callable[[Path, Path, Images, Path], None]]] = {
    "ours": (".xml", ours),
    "nncf": (".xml", nncf(transformer=False)),
    "nncf-transformer": (".xml", nncf(transformer=True)),
    "onnxruntime": (".onnx", onnx_runtime),
    "modelopt": (".onnx", modelopt),
}


def _int8(plain: Path) -> Contract:
    contract = read_contract(plain)
    return dataclasses.replace(contract, precision="int8", parity={})


def _keep(model: Any, plain: Path, target: Path) -> None:
    write_contract(model, _int8(plain))
    target.write_bytes(model.SerializeToString())


def _batches(plain: Path, images: Images) -> Iterator[dict[str, Any]]:
    name = read_contract(plain).input.name
    return ({name: images[i : i + _BATCH]} for i in range(0, len(images), _BATCH))


def _vectors(plain: Path, crops: CropSet) -> Any:
    with open_runner(plain, "onnxruntime") as runner:
        parts = [runner.run(crops.images[i : i + 16]) for i in range(0, len(crops), 16)]
    return np.concatenate(parts)


def scores(name: str, folder: Path) -> dict[str, Any]:
    """Every quantiser's file, and what it retrieves."""
    plain, world = folder / f"{name}.onnx", folder / "world"
    size = read_contract(plain).input
    crops = validation_crops(world, height=size.height, width=size.width)
    images = calibration_crops(world, height=size.height, width=size.width, limit=CROPS).images
    reference = _vectors(plain, crops)
    found: dict[str, Any] = {"crops": len(crops), "queries": crops.queries, "quantisers": {}}
    for quantiser, (suffix, write) in QUANTISERS.items():
        if quantiser == "nncf-transformer" and "vit" not in name:
            continue
        target = folder / f"{name}.{quantiser}{suffix}"
        if not target.exists():
            try:
                write(plain, world, images, target)
            except Exception as exc:  # one that cannot is a result too
                text = " ".join(str(exc).split())[:200]
                found["quantisers"][quantiser] = {"failed": f"{type(exc).__name__}: {text}"}
                print(f"{target.name}: {exc!r}", flush=True)
                continue
        with open_runner(target, "openvino") as runner:
            parity = measure_parity(runner.run, reference, crops, runtime="openvino")
        assert parity.network is not None
        assert parity.artefact is not None
        found["mAP_fp32"] = round(100 * parity.network.mAP, 2)
        found["quantisers"][quantiser] = {
            "mAP": round(100 * parity.artefact.mAP, 2),
            "rank1": round(100 * parity.artefact.rank1, 2),
            "map_drop_95": [round(x, 2) for x in parity.map_drop_interval or ()],
            "mean_cosine": round(parity.mean_cosine, 5),
            "min_cosine": round(parity.min_cosine, 5),
        }
        print(f"{target.name}: {found['quantisers'][quantiser]}", flush=True)
    return found


def speeds(name: str, folder: Path, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Images a second on OpenVINO of all files, and of FP32 on it, in turns."""
    files = [folder / f"{name}.onnx"]
    for quantiser, (suffix, _) in QUANTISERS.items():
        if "mAP" in found["quantisers"].get(quantiser, {}):
            files.append(folder / f"{name}.{quantiser}{suffix}")
    how = ["--batch-sizes", "1,16", "--duration", seconds, "--runtime", "openvino"]
    measured = command("bench", *files, *how)
    return {
        f"{c['model']} {c['precision']}": {str(s["batch"]): s["images_per_s"] for s in c["series"]}
        for c in measured["contenders"]
    }


def main() -> None:
    """Quantise, judge, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=["osnet_x0_25", "test_vit"])
    parser.add_argument("--only", choices=("scores", "bench"), help="one part; both by default")
    parser.add_argument("--duration", type=float, default=2, help="seconds of bench")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the result")
    given = parser.parse_args()
    kept = given.folder / "quantisers.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name in given.names:
        if given.only != "bench":
            found[name] = scores(name, given.folder)
        if given.only != "scores":
            speed = speeds(name, given.folder, found[name], given.duration)
            found[name]["images_per_s"] = speed
            print(name, json.dumps(speed), flush=True)
        kept.write_text(json.dumps(found, indent=2) + "\n")
    record("quantisers/1", {"runtime": "openvino", "networks": found}, given.out)


if __name__ == "__main__":
    main()
