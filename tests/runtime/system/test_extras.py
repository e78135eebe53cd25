"""Optional packages: what they would send stays here, and a missing one is named."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from sa_runtime.errors import MissingPackageError
from sa_runtime.system.extras import known_package, require

HEARD = """
import sys, threading
from sa_runtime.system.extras import require
{before}
openvino = require("openvino", extra="cpu", purpose="a test")
assert callable(openvino.convert_model)
print([name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"])
print(threading.active_count())
"""


def heard(before: str = "") -> list[str]:
    code = HEARD.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def in_the_tree() -> set[str]:
    """The extras of this tree, which may be newer than what is installed."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    return {*project["optional-dependencies"]}


def test_openvino_is_imported_without_what_it_sends() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert heard() == ["[]", "1"]


def test_a_program_that_imported_the_sender_keeps_it() -> None:
    pytest.importorskip("openvino_telemetry", reason="openvino-telemetry is not installed")
    assert "openvino_telemetry.main" in heard("import openvino_telemetry")[0]


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(
        MissingPackageError, match=r"a test needs .*'nothing_here'.*sa-deploy\[cpu\]"
    ):
        require("nothing_here", extra="cpu", purpose="a test")


@pytest.mark.parametrize(
    ("module", "extras"),
    [("torch.nn", "train,export"), ("h5py", "train"), ("onnxscript", "export"), ("timm", "timm")],
)
def test_what_an_import_lacks_is_told_with_the_extras_that_bring_it(
    module: str, extras: str
) -> None:
    installed = metadata.metadata("sa-deploy").get_all("Provides-Extra") or []
    if lacking := set(extras.split(",")) - set(installed):
        assert lacking <= in_the_tree()
        pytest.skip(f"installed before there was {', '.join(lacking)}: pip install -e .")
    error = known_package(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert error is not None
    assert str(error).endswith(f"pip install 'sa-deploy[{extras}]'")


@pytest.mark.parametrize("module", ["sa_training.gone", "tor", "numpy", None])
def test_what_no_extra_brings_is_a_defect(module: str | None) -> None:
    assert known_package(ModuleNotFoundError("No module", name=module)) is None
