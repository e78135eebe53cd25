"""``sa-deploy bench`` through the installed command's own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

QUICK = (
    "--runtime",
    "onnxruntime",
    "--batch-sizes",
    "1,2",
    "--iterations",
    "6",
    "--duration",
    "0.1",
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sa_deploy", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.fixture(scope="module")
def base(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "base.json"
    done = run(tiny_model.path, *QUICK, "--json", "--out", path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(path.read_text())
    return path


def scaled(base: Path, path: Path, factor: float) -> Path:
    """The base, as if it had been so much faster."""
    result: dict[str, Any] = json.loads(base.read_text())
    for contender in result["contenders"]:
        for series in contender["series"]:
            series["rounds_images_per_s"] = [factor * v for v in series["rounds_images_per_s"]]
    path.write_text(json.dumps(result))
    return path


def test_json_is_the_result(base: Path, tiny_model: TinyModel) -> None:
    result = json.loads(base.read_text())
    (contender,) = result["contenders"]
    assert contender["name"] == "onnxruntime fp32"
    assert contender["model"] == tiny_model.path.name
    assert [series["iterations"] for series in contender["series"]] == [6, 6]
    assert result["options"]["batch_sizes"] == [1, 2]


def test_people_get_tables_a_picture_and_the_choice_of_auto(
    base: Path, tiny_model: TinyModel, tmp_path: Path
) -> None:
    picture = tmp_path / "bench.png"
    slow = scaled(base, tmp_path / "slow.json", 0.001)
    done = run(
        *(tiny_model.path, *QUICK, "--runtime", "auto", "--picture", picture, "--compare", slow)
    )
    assert done.returncode == 0, done.stderr
    for text in ("images/s", "p99", "% of limit", "peak MB", "least cosine", "auto: openvino"):
        assert text in done.stdout
    assert "auto took openvino fp32: first choice for .onnx, nothing was measured" in done.stderr
    assert f"picture: {picture}" in done.stderr
    assert picture.stat().st_size > 10_000
    assert "Against the base" in done.stdout
    assert "faster" in done.stdout


@pytest.mark.alone
def test_a_slower_build_ends_in_exit_code_3(
    base: Path, tiny_model: TinyModel, tmp_path: Path
) -> None:
    fast = scaled(base, tmp_path / "fast.json", 1000)
    done = run(tiny_model.path, *QUICK, "--compare", fast, "--fail-above", "20%", "--json")
    assert done.returncode == 3
    assert "error: slower than the base: onnxruntime fp32 at batch 1 by 9" in done.stderr
    comparison = json.loads(done.stdout)["comparison"]
    assert {change["verdict"] for change in comparison["changes"]} == {"slower"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-sizes", "1;8"), "--batch-sizes 1;8: expected numbers with commas, as 1,8,32"),
        (
            ("--picture", "p.gif"),
            "--picture p.gif: expected a name that ends in .png, .svg or .pdf",
        ),
        (("--compare", "gone.json"), "gone.json: no such file; expected a result of"),
        (("--fail-above", "much"), "--fail-above much: expected a percentage such as 5%"),
        (
            ("--runtime", "onnxruntime", "--device", "npu:3", "--iterations", "1"),
            "--device npu:3: ",
        ),
        (("--runtime", "coreml"), "--runtime coreml: unknown; choose from auto, "),
    ],
)
def test_wrong_options_are_one_line(
    tiny_model: TinyModel, arguments: tuple[str, ...], message: str
) -> None:
    done = run(tiny_model.path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"error: {message}" in done.stderr
