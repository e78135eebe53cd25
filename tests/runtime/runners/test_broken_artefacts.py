"""What no runner opens is refused by name: files, options, contracts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from sa_runtime.errors import ContractError, InputError, MissingPackageError, RunnerError
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.table import RUNNERS, runner_class
from tests.runtime.runners.test_runners import OPENED

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)


def test_names_files_and_options_that_do_not_fit_are_refused(
    tiny_artefacts: TinyArtefacts, tmp_path: Path
) -> None:
    model = tiny_artefacts.files["onnx"]
    with pytest.raises(InputError, match="runtime='coreml': unknown; choose from auto, openvino, "):
        open_runner(model, "coreml")
    with pytest.raises(InputError, match=r"absent\.onnx: no such file"):
        open_runner(tmp_path / "absent.onnx")
    (tmp_path / "model.tflite").touch()
    with pytest.raises(InputError, match=r"no runtime opens '\.tflite'; expected \.onnx, \.xml"):
        open_runner(tmp_path / "model.tflite")
    with pytest.raises(InputError, match=r"openvino': does not open \.torchscript .*torchscript$"):
        open_runner(tiny_artefacts.files["torchscript"], "openvino")
    with pytest.raises(InputError, match="runtime='onnxruntime': no option 'stream'; expected"):
        open_runner(model, "onnxruntime", stream=2)
    for runtime, options, message in (
        ("onnxruntime", {"device": "cuda"}, r"device='cuda': this ONNX Runtime offers .*\[gpu\]"),
        ("onnxruntime", {"graph": "most"}, "graph='most': expected one of none, basic, extended"),
        ("openvino", {"device": "GPU.7"}, r"device='GPU\.7': OpenVINO finds CPU"),
        ("openvino", {"hint": "fast"}, "hint='fast': expected one of latency, throughput"),
        ("openvino", {"precision": "int4"}, "precision='int4': expected one of fp32, bf16, fp16"),
        ("openvino", {"precision": "fp16"}, "precision='fp16': CPU computes this model in"),
    ):
        with pytest.raises(InputError, match=message):
            open_runner(model, runtime, **options)
    for runtime, options, message in (
        ("torch", {"device": "cuda:9"}, "device='cuda:9': torch sees 0 CUDA devices"),
        ("torch", {"device": "npu!"}, "device='npu!': expected cpu, cuda or cuda:N"),
        ("torch", {"precision": "fp8"}, "precision='fp8': expected one of fp32, bf16"),
    ):
        with pytest.raises(InputError, match=message):
            open_runner(tiny_artefacts.files["torch"], runtime, **options)


def test_an_embedding_that_the_artefact_does_not_hold_is_named(
    tiny_artefacts: TinyArtefacts,
) -> None:
    for artefact, runtime in OPENED:
        with pytest.raises(
            ContractError, match=r"model\.\w+: embedding='global': the artefact holds parts; export"
        ):
            open_runner(tiny_artefacts.files[artefact], runtime, embedding="global")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNNERS, "torch", "sa_export.runners.absent:Nothing")
    with pytest.raises(
        MissingPackageError, match=r"runtime torch needs .*absent.*'sa-deploy\[train\]'"
    ):
        runner_class("torch")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_broken_onnx_files_are_named(
    tiny_artefacts: TinyArtefacts, tmp_path: Path, runtime: str
) -> None:
    import onnx

    whole = tiny_artefacts.files["onnx"].read_bytes()
    model = onnx.load_from_string(whole)
    broken = tmp_path / "broken.onnx"
    foreign = b"\x89PNG\r\n\x1a\n" + bytes(64)
    for content in (b"", foreign, whole[:100], whole[: len(whole) // 2], whole[:-40]):
        broken.write_bytes(content)
        with pytest.raises(
            (InputError, ContractError, RunnerError),
            match=r"broken\.onnx: (not a whole|no contract|ONNX Runtime cannot load|not an ONNX)",
        ):
            open_runner(broken, runtime)
    props = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    onnx.save(model, broken)
    with pytest.raises(ContractError, match=r"broken\.onnx: no contract in it"):
        open_runner(broken, runtime)
    onnx.helper.set_model_props(model, {**props, METADATA_KEY: props[METADATA_KEY][:-9]})
    onnx.save(model, broken)
    with pytest.raises(ContractError, match=r"broken\.onnx: its contract cannot be read"):
        open_runner(broken, runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"output": OutputSpec(dim=1535)},
            r"embeddings is float32 \(N, 1536\), the contract says float32 \(N, 1535\)",
        ),
        (
            {"input": InputSpec(height=128, width=48)},
            r"images is uint8 \(N, 128, 64, 3\), the contract says uint8 \(N, 128, 48, 3\)",
        ),
        (
            {"input": InputSpec(height=128, width=64, layout="nchw", dtype="float32")},
            r"images is uint8 \(N, 128, 64, 3\), the contract says float32 \(N, 3, 128, 64\)",
        ),
        (
            {"input": InputSpec(name="input", height=128, width=64)},
            r"input is absent, the contract says uint8 \(N, 128, 64, 3\)",
        ),
    ],
)
def test_a_contract_that_is_not_the_graphs_is_refused(
    tiny_artefacts: TinyArtefacts,
    tmp_path: Path,
    runtime: str,
    change: dict[str, Any],
    message: str,
) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    model = onnx.load(tiny_artefacts.files["onnx"])
    text = {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
    contract = dataclasses.replace(Contract.from_json(text, source="test"), **change)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    with pytest.raises(ContractError, match=rf"model\.onnx: {message}; the file was"):
        open_runner(path, runtime)


@pytest.mark.parametrize("artefact", ["torchscript", "torch-export", "openvino"])
def test_other_broken_artefacts_are_named(
    tiny_artefacts: TinyArtefacts, tmp_path: Path, artefact: str
) -> None:
    source = tiny_artefacts.files[artefact]
    whole = source.read_bytes()
    broken = tmp_path / f"broken{source.suffix}"
    for length in (0, len(whole) // 2):
        broken.write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"broken\{source.suffix}: not a whole"):
            open_runner(broken, artefact)
    if artefact == "openvino":
        shutil.copy(source, broken)
        with pytest.raises(RunnerError, match=r"broken\.xml: OpenVINO cannot read it"):
            open_runner(broken, artefact)
