"""No file name and no number given to a command ends in a traceback.

Every argument and option of every command is given what it cannot take, from a table, in this
process. What a command would do with a value that it does take is not run: its required files
are missing ones.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sa_deploy.app import COMMANDS, app, main

ROOT: Any = typer.main.get_command(app)
NUMBERS = ("0", "-1", str(10**9), "nan")
NAMES = ("missing", "folder", "empty", "random", "caf\udce9", "new\nline", "c:1")
SUFFIXES = ("", ".onnx", ".pt", ".parquet", ".txt", ".jpg", ".mp4", ".engine", ".xml")
ALLOWED = {0, 2, 3, 4}
STARTS_WITHOUT_FILES = {"demo", "doctor", "data synth"}
"""Commands that would begin their work: only what they must refuse is given to them."""


def commands() -> Iterator[tuple[str, Any]]:
    """Name and command of every command, those of groups as well."""
    for name in COMMANDS:
        command = ROOT.commands[name]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {child}", inner[child]) for child in inner)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of every kind, each under every suffix."""
    root = tmp_path_factory.mktemp("fuzz")
    noise = bytes((37 * i * i + 11 * i) % 256 for i in range(4096))
    for suffix in SUFFIXES:
        (root / f"folder{suffix}").mkdir()
        (root / f"empty{suffix}").write_bytes(b"")
        for name in NAMES[3:]:
            (root / os.fsencode(f"{name}{suffix}").decode("utf-8", "surrogateescape")).write_bytes(
                noise
            )
    return root


def given(parameter: Any) -> list[str]:
    """How a parameter that must be given is given a file that is not there."""
    words = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
    return [*words, *["missing.onnx"] * max(1, parameter.nargs)]


def run(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sa-deploy", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    shown = f"sa-deploy {words!r}: exit code {ended.value.code}\n{said.err}"
    assert ended.value.code in ALLOWED, shown
    assert "Traceback" not in said.err, shown


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: str(value))
def test_no_name_and_no_number_ends_in_a_traceback(
    name: str,
    command: Any,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    required = [p for p in command.params if p.required]
    others = {id(p): given(p) for p in required}
    for position, parameter in enumerate(command.params):
        if getattr(parameter, "is_flag", False) or getattr(parameter, "count", False):
            continue
        kind = str(parameter.type_descriptor.annotation)
        numeric = re.search(r"\b(int|float)\b", kind) is not None
        if name in STARTS_WITHOUT_FILES and not numeric:
            continue
        values = (
            list(NUMBERS)
            if numeric
            else [
                f"{stem}{SUFFIXES[(position + index) % len(SUFFIXES)]}"
                for index, stem in enumerate(NAMES)
            ]
        )
        if name in STARTS_WITHOUT_FILES:
            values = ["²"]
        rest = [word for p in required if p is not parameter for word in others[id(p)]]
        for value in values:
            words = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            run([*name.split(), *rest, *words, value], monkeypatch, capsys)
