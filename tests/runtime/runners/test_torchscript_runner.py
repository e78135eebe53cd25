from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sa_runtime.artefact.contract import METADATA_KEY
from sa_runtime.errors import CheckpointError, ContractError, RunnerError
from sa_runtime.runners.opening import open_runner

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)


def rewritten(source: Path, target: Path, *, without: str = "", damage: str = "") -> Path:
    """The archive without the entries that end so, or with other bytes in them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if without and entry.filename.endswith(without):
                continue
            content = old.read(entry)
            if damage and entry.filename.endswith(damage):
                content = content[::-1]
            new.writestr(entry, content)
    return target


@pytest.mark.parametrize("artefact", ["torchscript", "torch-export"])
def test_files_of_torch_without_a_contract_are_refused(
    tiny_artefacts: TinyArtefacts, tmp_path: Path, artefact: str
) -> None:
    source = tiny_artefacts.files[artefact]
    bare = rewritten(source, tmp_path / f"bare{source.suffix}", without=METADATA_KEY)
    with pytest.raises(ContractError, match=rf"bare\{source.suffix}: no contract in it"):
        open_runner(bare)


@pytest.mark.parametrize(
    ("artefact", "damage"), [("torchscript", "data.pkl"), ("torch-export", "model.json")]
)
def test_a_damaged_program_is_named(
    tiny_artefacts: TinyArtefacts, tmp_path: Path, artefact: str, damage: str
) -> None:
    source = tiny_artefacts.files[artefact]
    broken = rewritten(source, tmp_path / f"broken{source.suffix}", damage=damage)
    with pytest.raises(RunnerError, match=rf"broken\{source.suffix}: torch cannot load it: "):
        open_runner(broken)


def test_a_checkpoint_is_the_reference_under_its_own_contract(
    tiny_artefacts: TinyArtefacts,
) -> None:
    with (
        open_runner(tiny_artefacts.files["torch"]) as checkpoint,
        open_runner(tiny_artefacts.files["torchscript"]) as artefact,
    ):
        assert checkpoint.contract.space == artefact.contract.space
        assert "nothing else fits" in checkpoint.reason
    with open_runner(tiny_artefacts.files["torch"], embedding="global") as other:
        assert other.contract.output.dim == 256
        assert other.run(tiny_artefacts.crops(2)).shape == (2, 256)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "weights.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"weights\.pt: not a readable checkpoint"):
        open_runner(tmp_path / "weights.pt")


def test_the_runtime_floor_runs_without_torch(tiny_artefacts: TinyArtefacts) -> None:
    program = f"""
import sys
from sa_runtime.runners.opening import open_runner
for runtime in ("onnxruntime", "openvino"):
    open_runner({str(tiny_artefacts.files["onnx"])!r}, runtime).close()
assert "torch" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
