"""``sa-deploy build`` with the real TensorRT-RTX builder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sa_runtime.errors import InputError
from sa_runtime.tensorrt.options import Profile, batch_from_shape, profile_for
from sa_runtime.tensorrt.sidecar import read_sidecar
from tests.runtime.tensorrt.small_models import RELU, write_model

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A graph of one layer with a contract: 4 x 4 pixels, float NHWC."""
    return write_model(tmp_path / "model.onnx", RELU)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sa_deploy", "build", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_lies_beside_its_model_and_inspect_shows_it(model: Path) -> None:
    built = run(model, "--flavour", "tensorrt-rtx", "--max-batch", 8, "--json")
    assert built.returncode == 0, built.stderr
    result = json.loads(built.stdout)
    engine = model.with_suffix(".engine")
    assert result["engine"] == str(engine)
    assert result["size_bytes"] == engine.stat().st_size
    assert result["batch"] == {"min": 1, "opt": 8, "max": 8}
    assert (result["flavour"], result["plugin_nodes"], result["gpu"]) == ("tensorrt-rtx", 0, "")
    shown = subprocess.run(
        [sys.executable, "-m", "sa_deploy", "inspect", str(engine)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "TensorRT engine" in shown.stdout
    assert read_sidecar(engine).tensorrt_version in shown.stdout


def test_trtexecs_words_are_understood(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "named.engine"
    built = run(
        model,
        f"--saveEngine={out}",
        "--minShapes=images:2x4x4x3",
        "--optShapes=images:3x4x4x3",
        "--maxShapes=images:5x4x4x3",
        "--builderOptimizationLevel=1",
        "--workspace=0.5",
    )
    assert built.returncode == 0, built.stderr
    info = read_sidecar(out)
    assert info.options.profile == Profile(min=2, opt=3, max=5)
    assert (info.options.optimization_level, info.options.workspace_gib) == (1, 0.5)
    assert "2 to 5, fastest at 3" in built.stdout


def test_the_cache_names_the_engine(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    first, second = (run(model, "--cache", folder, "--json") for _ in range(2))
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert "there is no engine yet; building it" in first.stderr
    assert "building it" not in second.stderr
    assert Path(json.loads(first.stdout)["engine"]).parent == folder


def test_verbose_shows_tensorrts_log(model: Path) -> None:
    assert "sa_runtime.tensorrt.builder: info: " in run(model, "--verbose").stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--precision", "fp16"], "the graph is fp32 and TensorRT computes what the graph says"),
        (["--min-batch", "4", "--max-batch", "2"], "expected 1 <= min <= opt <= max"),
        (["--maxShapes", "images:8x5x4x3"], "the ONNX file's input is images:Nx4x4x3"),
        (["--max-batch", "8", "--maxShapes", "images:8x4x4x3"], "say the same; give one"),
        (["--cache", "c", "-o", "m.engine"], "the cache names its engines itself"),
        (["--cache", "c", "--strip"], "takes its weights from the ONNX file beside it"),
        (["--workspace", "nan"], "--workspace nan: expected GiB, more than 0"),
        (["--plugin"], "holds no AttentionPool node"),
        (["--flavour", "tensorrt"], "tensorrt needs the package 'tensorrt', which is"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    model: Path, arguments: list[str], text: str
) -> None:
    built = run(model, *arguments)
    assert built.returncode == 2
    assert built.stdout == ""
    assert built.stderr.splitlines()[-1].startswith("error: ")
    assert text in built.stderr
    assert not model.with_suffix(".engine").exists()


def test_profiles_follow_from_what_is_asked(tmp_path: Path) -> None:
    from sa_runtime.tensorrt.graph import read_graph

    free = read_graph(write_model(tmp_path / "free.onnx", RELU)).contract
    fixed = read_graph(write_model(tmp_path / "fixed.onnx", RELU, batch=4)).contract
    assert profile_for(free) == Profile(min=1, opt=16, max=32)
    assert profile_for(free, max_batch=8) == Profile(min=1, opt=8, max=8)
    assert profile_for(free, opt_batch=64) == Profile(min=1, opt=64, max=64)
    assert profile_for(free, min_batch=24) == Profile(min=24, opt=24, max=32)
    assert profile_for(fixed) == profile_for(fixed, max_batch=4) == Profile(min=4, opt=4, max=4)
    with pytest.raises(InputError, match="max_batch=8: the ONNX file takes exactly 4 images"):
        profile_for(fixed, max_batch=8)


@pytest.mark.parametrize("text", ["images:4x4x3", "other:1x4x4x3", "images:ax4x4x3", ""])
def test_shapes_that_are_not_the_inputs_are_refused(tmp_path: Path, text: str) -> None:
    from sa_runtime.tensorrt.graph import read_graph

    contract = read_graph(write_model(tmp_path / "m.onnx", RELU)).contract
    with pytest.raises(InputError, match=f"--optShapes {text}: .*images:Nx4x4x3"):
        batch_from_shape("--optShapes", text, contract)
    assert batch_from_shape("--optShapes", "7x4x4x3", contract) == 7
