"""The help of every command: at 80 columns, with names in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from sa_deploy.app import app


def commands() -> Iterator[tuple[str, Any]]:
    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for child, below in command.commands.items():
                yield from walk(f"{name} {child}".strip(), below)
        else:
            yield name, command

    yield from walk("", typer.main.get_command(app))


ALL = dict(commands())


def shown(name: str, flag: str = "--help") -> str:
    done = CliRunner().invoke(app, [*name.split(), flag], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def options(name: str) -> list[Any]:
    return [param for param in ALL[name].params if param.param_type_name == "option"]


def entry(param: Any, text: str) -> str:
    """What follows an option's names in the help."""
    names = ", ".join(sorted(param.opts, key=lambda name: len(name) > 2))
    (rest,) = re.findall(rf"(?m)^  {re.escape(names)}(?![-\w])(.*)$", text)
    return str(rest)


@pytest.mark.parametrize("name", ALL)
def test_names_stand_in_full_within_80_columns(name: str) -> None:
    text = shown(name)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "…" not in text
    for param in options(name):
        entry(param, text)


@pytest.mark.parametrize("name", ALL)
def test_a_flag_shows_no_value_and_an_option_does(name: str) -> None:
    text = shown(name)
    for param in options(name):
        flag = param.is_flag or param.count
        assert bool(re.match(r" [A-Za-z]", entry(param, text))) is not flag, param.name


@pytest.mark.parametrize("name", ["", "train", "data", "data check"])
def test_h_is_help(name: str) -> None:
    assert shown(name, "-h") == shown(name)
