"""``sa-deploy bundle``: what was written, read by the vendors' own parsers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_runtime.artefact.contract import Contract
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import InputError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bundle", *map(str, arguments)])


def triton_config(path: Path) -> Any:
    """Parsed with the schema in tritonclient, whose package around it would want grpc as well."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("tritonclient is not installed")
    file = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return text_format.Parse(path.read_text(), schema.ModelConfig())


@pytest.fixture(scope="module")
def float_model(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("float")
    words = ["export", tiny_checkpoint, "--onnx", "--input", "nchw-float", "--precision", "fp16"]
    words += ["--validation", synthetic_root, "--validation-crops", 40]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder / "model.fp16.onnx"


def test_triton_serves_the_uint8_model(tiny_onnx_model: Path, tmp_path: Path) -> None:
    done = run(
        *(tiny_onnx_model, "--triton", tmp_path, "--name", "people", "--max-batch", 48),
        *("--max-delay-us", 500, "--instances", 2),
    )
    assert done.exit_code == 0, done.output
    config = triton_config(tmp_path / "people" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("people", "onnxruntime", 48)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("images", type(config).DESCRIPTOR.file.enum_types_by_name["DataType"]
         .values_by_name["TYPE_UINT8"].number, [128, 64, 3])
    ]  # fmt: skip
    assert [(t.name, list(t.dims)) for t in config.output] == [("embeddings", [1536])]
    assert list(config.dynamic_batching.preferred_batch_size) == [16, 32, 48]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.instance_group[0].count == 2
    text = config.parameters["sa_deploy.contract"].string_value
    assert Contract.from_json(text, source="pbtxt") == read_contract(tiny_onnx_model)
    served = tmp_path / "people" / "1" / "model.onnx"
    assert served.read_bytes() == tiny_onnx_model.read_bytes()


def test_triton_serves_float_models_and_several_outputs(
    tiny_checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    words = [tiny_checkpoint, "--onnx", "--embedding", "parts,global", "--batch", 8]
    words += ["--validation", synthetic_root, "--validation-crops", 40]
    done = CliRunner().invoke(
        app, ["export", *map(str, words), "--input", "nchw-float", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert run(tmp_path / "model.onnx", "--triton", tmp_path / "models", "--cpu").exit_code == 0
    config = triton_config(tmp_path / "models" / "sa_reid" / "config.pbtxt")
    assert list(config.input[0].dims) == [3, 128, 64]
    assert [t.name for t in config.output] == ["embeddings", "embeddings_global"]
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [8]


def test_deepstream_gets_the_values_of_the_contract(float_model: Path, tmp_path: Path) -> None:
    """Read by OpenCV's parser of the same dialect; nvtracker computes scale * (x - offset)."""
    target = tmp_path / "reid.yml"
    done = run(float_model, "--deepstream", target, "--max-batch", 64)
    assert done.exit_code == 0, done.output
    storage = cv2.FileStorage(str(target), cv2.FILE_STORAGE_READ)
    section = storage.getNode("ReID")

    def number(key: str) -> float:
        return float(section.getNode(key).real())

    assert [section.getNode("inferDims").at(i).real() for i in range(3)] == [3, 128, 64]
    assert number("reidFeatureSize") == 1536
    assert number("networkMode") == 1  # FP16
    assert number("inputOrder") == 0  # NCHW
    assert number("colorFormat") == 0  # RGB
    assert number("batchSize") == 64
    assert number("netScaleFactor") == pytest.approx(1 / 255)
    assert [section.getNode("offsets").at(i).real() for i in range(3)] == [0, 0, 0]
    assert number("keepAspc") == 0
    assert section.getNode("onnxFile").string() == str(float_model.resolve())
    storage.release()


def test_what_the_servers_cannot_feed_is_refused(tiny_onnx_model: Path, tmp_path: Path) -> None:
    done = run(tiny_onnx_model, "--deepstream", tmp_path / "reid.yml")
    assert isinstance(done.exception, InputError)
    assert "`sa-deploy export WEIGHTS --onnx --input nchw-float`" in str(done.exception)
    done = run(tiny_onnx_model)
    assert "nothing to write; expected --triton DIR or --deepstream FILE" in str(done.exception)
    done = run(tiny_onnx_model, "--triton", tmp_path, "--name", "a b")
    assert "expected letters, digits, _, - and . only" in str(done.exception)
    done = run(tmp_path / "model.xml", "--triton", tmp_path)
    assert "Triton serves .onnx and .engine here" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
