"""The command line as a whole: start-up, help, and how errors leave it."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

HEAVY = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "cv2",
    "pyarrow",
    "ray",
    "matplotlib",
    "scipy",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sa_deploy", *arguments], capture_output=True, text=True, check=False
    )


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['sa-deploy', '--help']\n"
        "from sa_deploy.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "LOADED []" in result.stdout


@pytest.mark.alone
def test_help_takes_less_than_half_a_second() -> None:
    run("--help")
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        assert run("--help").returncode == 0
        best = min(best, time.perf_counter() - began)
    assert best < 0.5


def test_every_command_has_a_docs_page() -> None:
    from sa_deploy.app import COMMANDS

    pages = Path(__file__).parents[2] / "docs" / "commands"
    for name in COMMANDS:
        assert f"sa-deploy {name}" in (pages / f"{name}.md").read_text(), f"{name}.md never runs it"


def test_the_index_says_what_each_command_says_of_itself() -> None:
    from sa_deploy.app import COMMANDS, app

    root: Any = typer.main.get_command(app)
    said = {name: (root.commands[name].help or "").splitlines()[0] for name in COMMANDS}
    assert said == COMMANDS
    assert run("no-such-command").returncode == 2
    assert "Did you mean 'train'?" in run("trian").stderr
    shown = " ".join(run("--help").stdout.split())
    for name, line in COMMANDS.items():
        assert f" {name} {line}" in shown


def test_the_function_of_a_command_is_short() -> None:
    """What it does is in the floors below. Signature and docstring are not counted."""
    long = {}
    for path in (Path(__file__).parents[2] / "sa_deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > 65:
                    long[f"{path.name}:{node.name}"] = lines
    assert long == {}


def test_a_known_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = run("evaluate", str(tmp_path / "none.onnx"), "--data-dir", str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "none.onnx" in lines[0] or str(tmp_path) in lines[0]


def test_version() -> None:
    assert run("--version").stdout.startswith("sa-deploy 0.")
