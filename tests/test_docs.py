"""Every `sa-deploy` line of the README and of docs/ is run, or at least parsed.

A fence ``sh`` holds commands that run here, one after another, in a folder that has ``world`` (a
small synthetic data set) and ``run`` (``checkpoint.pt`` and ``model.onnx`` of a tiny network). A
fence ``sh <reason>`` (a GPU, a data set of others, minutes of time) holds commands whose options
are checked only.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```sh([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHORTER = {
    "data synth": [
        *("--identities", "24", "--cameras", "3", "--images", "2"),
        *("--videos", "1", "--seconds", "2", "--force"),
    ],
    "train": ["--max-steps", "2"],
    "export": ["--validation", "world", "--validation-crops", "40"],
    "bench": ["--duration", "0.1"],
}
"""What is added to a command so that a page runs in seconds, not minutes."""


def commands(page: Path) -> Iterator[tuple[bool, list[str]]]:
    """(runs here, arguments) of every `sa-deploy` line of a page."""
    for reason, block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["sa-deploy"]:
                yield not reason.strip(), words[1:]


def root_command() -> Any:
    from sa_deploy.app import app

    return typer.main.get_command(app)


def options_exist(arguments: list[str]) -> None:
    """Follow the sub-commands and look every option up."""
    command: Any = root_command()
    words = list(arguments)
    while hasattr(command, "commands") and words:
        name = words.pop(0)
        if name.startswith("-"):
            return
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    known = {flag for item in command.params for flag in (*item.opts, *item.secondary_opts)}
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            flag = word.split("=")[0]
            assert flag in known, f"sa-deploy {shlex.join(arguments)}: no option {flag}"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    synthetic_root: Path,
    tiny_checkpoint: Path,
    tiny_onnx_model: Path,
    torchlib_once: None,
) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(synthetic_root, folder / "world")
    (folder / "run").mkdir()
    shutil.copy(tiny_checkpoint, folder / "run" / "checkpoint.pt")
    shutil.copy(tiny_onnx_model, folder / "run" / "model.onnx")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sa_deploy.app import app

    monkeypatch.chdir(folder)
    found = list(commands(page))
    for runs, arguments in found:
        options_exist(arguments)
        if not runs:
            continue
        if arguments[0] == "train" and "--resume" not in arguments and "--out" in arguments:
            # Pages share the folder; a training refuses one that holds another's weights.
            (Path(arguments[arguments.index("--out") + 1]) / "checkpoint.pt").unlink(
                missing_ok=True
            )
        name = " ".join(arguments[: 2 if arguments[0] == "data" else 1])
        shorter = [] if "--dry-run" in arguments else SHORTER.get(name, [])
        result = CliRunner().invoke(app, [*arguments, *shorter], catch_exceptions=True)
        assert result.exit_code == 0, (
            f"{page.name}: sa-deploy {shlex.join(arguments)}\n{result.output}\n{result.exception!r}"
        )


def test_pages_hold_commands() -> None:
    """The pattern above finds what it should: a page without commands would pass unseen."""
    assert sum(len(list(commands(page))) for page in PAGES) >= 10
