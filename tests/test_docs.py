"""What the README and the pages of docs/ show is run, or at least parsed.

A fence ``sh`` holds commands that run here, one after another, in a folder that has ``world`` (a
small synthetic data set) and ``run`` (``checkpoint.pt`` and ``model.onnx`` of a tiny network). A
fence ``python`` runs there after the fences before it; ``frame``, ``xyxy``, ``crops`` and
``images`` are given. A fence with a reason (``sh a GPU``, ``python with videos of yours``) is
checked only: that the command's options exist, that the Python compiles.
"""

from __future__ import annotations

import dataclasses
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(sh|python)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INTERNAL = {"cam.md", "datasets.md", "synthetic.md"}
"""Pages whose Python reaches below the public names, and says so."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fence:
    """One fence of a page."""

    language: str
    runs: bool
    text: str

    def commands(self) -> Iterator[list[str]]:
        """Arguments of every `sa-deploy` line."""
        if self.language == "sh":
            for line in self.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["sa-deploy"]:
                    yield words[1:]


def fences(page: Path) -> list[Fence]:
    return [
        Fence(language=language, runs=not reason.strip(), text=text)
        for language, reason, text in FENCE.findall(page.read_text())
    ]


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
    exports_share: None,
) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(synthetic_root, folder / "world")
    (folder / "run").mkdir()
    shutil.copy(tiny_checkpoint, folder / "run" / "checkpoint.pt")
    shutil.copy(tiny_onnx_model, folder / "run" / "model.onnx")
    return folder


@pytest.fixture
def given(folder: Path) -> dict[str, Any]:
    """What the Python of a page finds: a frame, boxes in it, two crops, and both as a batch."""
    ok, frame = cv2.VideoCapture(str(folder / "world" / "videos" / "c1.mp4")).read()
    assert ok
    xyxy = np.asarray([[20.0, 30, 80, 190], [200, 40, 260, 200]])
    crops = [frame[30:190, 20:80], frame[40:200, 200:260]]
    images = np.stack([cv2.resize(crop, (64, 128)) for crop in crops])
    return {"frame": frame, "xyxy": xyxy, "crops": crops, "images": images}


def run_command(page: Path, arguments: list[str]) -> None:
    from sa_deploy.app import app

    name = " ".join(arguments[: 2 if arguments[0] == "data" else 1])
    shorter = [] if "--dry-run" in arguments else SHORTER.get(name, [])
    if name == "train" and "--resume" not in arguments and "--out" in arguments:
        # Pages share the folder; a training refuses one that holds another's weights.
        out = Path(arguments[arguments.index("--out") + 1])
        (out / "checkpoint.pt").unlink(missing_ok=True)
    result = CliRunner().invoke(app, [*arguments, *shorter], catch_exceptions=True)
    assert result.exit_code == 0, (
        f"{page.name}: sa-deploy {shlex.join(arguments)}\n{result.output}\n{result.exception!r}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_fences_of_a_page_run(
    page: Path, folder: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for fence in fences(page):
        for arguments in fence.commands():
            options_exist(arguments)
            if fence.runs:
                run_command(page, arguments)
        if fence.language == "python":
            code = compile(fence.text, str(page), "exec")
            if fence.runs:
                exec(code, given)


def test_pages_hold_commands_and_python() -> None:
    """The pattern above finds what it should: a page without fences would pass unseen."""
    found = [fence for page in PAGES for fence in fences(page)]
    assert sum(len(list(fence.commands())) for fence in found) >= 30
    assert sum(fence.language == "python" and fence.runs for fence in found) >= 8


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_runs(script: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    runpy.run_path(str(script))


def test_examples_are_short_and_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    for script in EXAMPLES:
        assert len([line for line in script.read_text().splitlines() if line]) <= 10, script.name
        assert f"({script.name})" in listed


def test_pages_and_examples_import_from_sa_deploy_alone() -> None:
    shown = [(script, script.read_text()) for script in EXAMPLES]
    shown += [
        (page, fence.text)
        for page in PAGES
        for fence in fences(page)
        if fence.language == "python" and page.name not in INTERNAL
    ]
    for path, text in shown:
        assert not re.search(r"^(?:from|import) sa_(?!deploy import)", text, re.MULTILINE), path
