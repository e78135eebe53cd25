"""The library's call for an export: sizes and gates come from the checkpoint and the precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_deploy import InputError, export_model
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.artefact.reference import reference_of

pytestmark = pytest.mark.usefixtures("exports_share")


def test_a_checkpoint_is_exported_at_its_own_size(
    trained_path: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    artefact = export_model(
        trained_path,
        str(tmp_path),
        embeddings=("global", "parts"),
        validation=synthetic_root,
        on_note=notes.append,
    )
    assert artefact.path == tmp_path / "model.onnx"
    assert artefact.contract == read_contract(artefact.path)
    assert (artefact.contract.input.height, artefact.contract.input.width) == (128, 64)
    assert artefact.contract.output.embedding == "global"
    assert artefact.parity["parts"].min_cosine > 0.99999
    statistics = reference_of(artefact.path)
    assert statistics is not None
    assert statistics.mean.shape == (artefact.contract.output.dim,)
    assert 0 < statistics.variance < 1
    assert statistics.count == artefact.parity["parts"].crops
    assert notes[0] == "comparing model.onnx (global) with the network on onnxruntime"
    assert artefact.parity["parts"].validation == str(synthetic_root)


def test_what_cannot_be_used_is_named(trained_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"precision.*fp8.*choose from fp32, fp16, bf16, int8"):
        export_model(trained_path, tmp_path, precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="format='trt': unknown; choose from onnx, torchscript"):
        export_model(trained_path, tmp_path, format="trt")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"recipe='sa': .* says its own recipe, tiny"):
        export_model(trained_path, tmp_path, recipe="sa")
    with pytest.raises(InputError, match="unknown; choose from sa,"):
        export_model(trained_path, tmp_path, recipe="se")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        export_model(trained_path, tmp_path, validation="nowhere")
